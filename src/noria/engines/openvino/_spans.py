"""What an answer's spans say: how long it waited, how its prompt was read, how its tokens came.

Everything is read from times and counts that the scheduler keeps; nothing is measured for this alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence as Many

from noria.engines._spans import Stage
from noria.engines.openvino._answer import Choice
from noria.engines.openvino._engine import Work
from noria.engines.openvino._job import Job

__all__ = ["stages"]


def stages(job: Job, choices: Many[Choice], work: Work) -> tuple[Stage, list[Stage]]:
    """The whole of an answer and its parts. The first choice tells of waiting and of the prompt, all of them of the rest.

    `work` is what the engine has done until now: with what it had done at the first token, it gives the mean batch.
    """
    first, now = choices[0].sequence, time.monotonic()
    generated = sum(choice.num_tokens for choice in choices)
    cached = sum(s.num_cached for s in job.sequences[:: job.num_choices])
    whole = Stage(
        f"engine {job.model}",
        first.arrived_s,
        now,
        {"noria.engine.choices": len(choices), "noria.engine.preemptions": sum(s.num_preempted for s in job.sequences)},
    )
    first_token_s = first.first_token_s or now  # 0 where a request asks for no token
    prefill = {"noria.engine.prompt_tokens": job.num_prompt_tokens, "noria.engine.cached_tokens": cached}
    decode: dict[str, float | str] = {
        "noria.engine.output_tokens": generated,
        "noria.engine.finish_reason": choices[0].finish or "",
    }
    steps = work.steps - first.first_token_work.steps
    if steps > 0:
        decode |= {"noria.engine.steps": steps}
        decode |= {"noria.engine.mean_batch": round((work.planned - first.first_token_work.planned) / steps, 2)}
    if generated > 1 and now > first_token_s:
        decode["noria.engine.tokens_per_s"] = round((generated - len(choices)) / (now - first_token_s), 1)
    return whole, [
        Stage("queue", first.arrived_s, first.admitted_s),
        Stage("prefill", first.admitted_s, first_token_s, prefill),
        Stage("decode", first_token_s, now, decode),
    ]
