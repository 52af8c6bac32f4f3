"""The scheduler's policy without a model, and its tokens with one, against the slow reference."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_decoder as tiny
from decoder_reference import forward, log_softmax
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.engines.openvino._blocks import BlockPool
from noria.engines.openvino._engine import Engine, Event
from noria.engines.openvino._grammar import GrammarConstraint, Grammars
from noria.engines.openvino._graph import build_decoder
from noria.engines.openvino._lookup import Lookup
from noria.engines.openvino._runner import PagedModel, RunnerConfig, Slice
from noria.engines.openvino._scheduler import Limits, Scheduler
from noria.engines.openvino._sequence import Sampling, Sequence
from noria.engines.openvino._tokenizer import Tokenizer
from noria.errors import ContextTooLong


def run_dry(scheduler: Scheduler, rng: random.Random, *, cancel: bool) -> list[int]:
    """Runs until nothing is left, inventing tokens; returns the ids in order of finishing."""
    finished: list[int] = []
    for _ in range(5000):
        planned = scheduler.plan()
        if not planned:
            break
        assert sum(item.count + len(item.guesses) for item in planned) <= scheduler.limits.max_batch_tokens
        assert len({item.sequence.id for item in planned}) == len(planned)
        for item in planned:
            through = item.sequence.num_computed + item.count + len(item.guesses)
            assert len(item.sequence.blocks) * scheduler.limits.block_size >= through
        sampling = [item.sequence for item in planned if item.samples]
        scheduler.computed(planned)
        for sequence in sampling:
            sequence.tokens.append(rng.randrange(3))
            if sequence.num_generated >= sequence.sampling.max_tokens:
                scheduler.finish(sequence, "length")
                finished.append(sequence.id)
        living = [*scheduler.running, *scheduler.waiting]
        if cancel and living and rng.random() < 0.2:
            gone = rng.choice(living)
            scheduler.finish(gone, "cancelled")
            finished.append(gone.id)
        scheduler.check()
    return finished


requests = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 30), st.booleans()), min_size=1, max_size=12)


@settings(max_examples=120, deadline=None)
@given(requests, st.integers(8, 30), st.integers(1, 40), st.booleans(), st.integers(0, 10**6))
def test_everyone_finishes_and_no_block_is_lost(
    asked: list[tuple[int, int, bool]], num_blocks: int, budget: int, cancel: bool, seed: int
) -> None:
    rng = random.Random(seed)
    scheduler = Scheduler(BlockPool(num_blocks), Limits(4, 100, budget, 6))
    expected = set()
    for length, max_tokens, shared in asked:
        tokens = [0] * length if shared else [rng.randrange(3) for _ in range(length)]
        try:
            scheduler.refuse_if_too_long(length, max_tokens)
        except ContextTooLong:
            assert length + max_tokens > min(100, num_blocks * 4)
            continue
        sequence = Sequence(tokens, Sampling(max_tokens))
        scheduler.add(sequence)
        expected.add(sequence.id)
    finished = run_dry(scheduler, rng, cancel=cancel)
    assert set(finished) == expected
    assert len(finished) == len(expected)
    assert scheduler.pool.num_free == num_blocks


def test_a_short_prompt_does_not_wait_behind_a_long_one() -> None:
    scheduler = Scheduler(BlockPool(200), Limits(4, 700, 32, 8))
    long, short = Sequence([1] * 600, Sampling(2)), Sequence([2] * 20, Sampling(2))
    scheduler.add(long)
    scheduler.add(short)
    steps = 0
    while short.num_computed < 20:
        planned = scheduler.plan()
        scheduler.computed(planned)
        steps += 1
    assert steps <= 2
    assert long.num_computed >= 32


def test_prompts_that_fit_one_at_a_time_are_read_once() -> None:
    scheduler = Scheduler(BlockPool(100), Limits(32, 4096, 256, 8))
    sequences = [Sequence([i] * 2560, Sampling(8)) for i in range(4)]
    for sequence in sequences:
        scheduler.add(sequence)
    computed = 0
    while planned := scheduler.plan():
        computed += sum(item.count for item in planned)
        sampling = [item.sequence for item in planned if item.samples]
        scheduler.computed(planned)
        for sequence in sampling:
            sequence.tokens.append(9)
            if sequence.num_generated == 8:
                scheduler.finish(sequence, "length")
    assert [s.num_preempted for s in sequences] == [0, 0, 0, 0]
    assert computed == 4 * (2560 + 7)


def test_a_request_that_cannot_fit_is_refused() -> None:
    scheduler = Scheduler(BlockPool(4), Limits(8, 1000, 32, 8))
    scheduler.refuse_if_too_long(30, 2)
    with pytest.raises(ContextTooLong) as refusal:
        scheduler.refuse_if_too_long(30, 3)
    assert refusal.value.code == "context_length_exceeded"
    assert refusal.value.status == 400


# With a model ---------------------------------------------------------------------------------------------------------


def run_engine(engine: Engine, sequences: list[Sequence], arrivals: list[int]) -> dict[int, list[Event]]:
    """Steps the engine by hand, adding sequence i before step arrivals[i]."""
    got: dict[int, list[Event]] = {s.id: [] for s in sequences}
    step = 0
    while step <= max(arrivals) or engine.scheduler.running or engine.scheduler.waiting:
        for sequence, when in zip(sequences, arrivals, strict=True):
            if when == step:
                engine.scheduler.add(sequence)
        for event in engine.step():
            got[event.sequence.id].append(event)
        engine.scheduler.check()
        step += 1
    return got


def agree_with_reference(sequences: list[Sequence], got: dict[int, list[Event]]) -> None:
    weights = tiny.Weights()
    for sequence in sequences:
        sampled = [s for event in got[sequence.id] for s in event.sampled]
        assert [s.token for s in sampled] == sequence.tokens[sequence.num_prompt :]
        rows = log_softmax(forward(tiny.SPEC, weights, sequence.tokens))
        for i, one in enumerate(sampled):
            row = rows[sequence.num_prompt + i - 1]
            assert one.token == int(row.argmax())
            assert one.logprobs is not None
            assert one.logprobs.logprob == pytest.approx(row[one.token], abs=2e-3)
            assert next(t for t, _ in one.logprobs.top) == one.token


@pytest.mark.parametrize(("blocks", "budget"), [(64, 256), (64, 24), (9, 64)], ids=["roomy", "chunked prefill", "pre-emption"])
def test_tokens_and_logprobs_agree_with_the_reference(blocks: int, budget: int) -> None:
    model = tiny.paged(blocks)
    limits = Limits(model.block_size, 512, budget, 8)
    engine = Engine(model, limits, frozenset(), lambda _: None)
    rng = np.random.default_rng(3)
    common = rng.integers(0, 256, 70).tolist()
    prompts = [rng.integers(0, 256, n).tolist() for n in (1, 5, 33, 64, 90)] + [[*common, i, i + 1] for i in range(4)]
    sequences = [Sequence(p, Sampling(40, temperature=0.0, top_logprobs=2)) for p in prompts]
    got = run_engine(engine, sequences, [0, 0, 1, 2, 2, 3, 9, 12, 40])
    agree_with_reference(sequences, got)
    if blocks == 9:
        assert sum(s.num_preempted for s in sequences) > 0
    else:
        assert sum(s.num_cached for s in sequences) >= 64


def test_prompt_logprobs_agree_with_the_reference_and_survive_chunks() -> None:
    model = tiny.paged()
    engine = Engine(model, Limits(model.block_size, 512, 16, 8), frozenset(), lambda _: None)
    prompt = np.random.default_rng(5).integers(0, 256, 50).tolist()
    sampling = Sampling(1, temperature=0.0, top_logprobs=1)
    first, again = (Sequence(list(prompt), sampling, wants_prompt_logprobs=True) for _ in range(2))
    got = run_engine(engine, [first, again], [0, 8])
    rows = log_softmax(forward(tiny.SPEC, tiny.Weights(), prompt))
    for sequence in (first, again):
        given = [n for event in got[sequence.id] for n in event.prompt_logprobs]
        assert len(given) == 49
        assert [n.logprob for n in given] == pytest.approx([rows[i][prompt[i + 1]] for i in range(49)], abs=2e-3)


def test_siblings_share_the_prompt() -> None:
    model = tiny.paged()
    engine = Engine(model, Limits(model.block_size, 512, 256, 8), frozenset(), lambda _: None)
    prompt = list(range(100))
    first = Sequence(list(prompt), Sampling(4, seed=1, top_logprobs=1, temperature=0.0))
    others = [Sequence(list(prompt), Sampling(4, temperature=0.0, top_logprobs=1), waits_for=first) for _ in range(3)]
    got = run_engine(engine, [first, *others], [0, 0, 0, 0])
    assert [s.num_cached for s in others] == [96, 96, 96]
    agree_with_reference([first, *others], got)


def test_a_seeded_answer_does_not_depend_on_its_company() -> None:
    model = tiny.paged()

    def tokens_of(company: int) -> list[int]:
        engine = Engine(model, Limits(model.block_size, 512, 64, 16), frozenset(), lambda _: None)
        mine = Sequence([1, 2, 3], Sampling(30, temperature=1.0, top_p=0.9, seed=42))
        others = [Sequence([i, 9], Sampling(25, temperature=1.3, seed=i)) for i in range(company)]
        run_engine(engine, [*others[:2], mine, *others[2:]], [0] * (company + 1))
        return mine.tokens

    assert tokens_of(0) == tokens_of(9)


def test_verified_guesses_change_no_token() -> None:
    model = tiny.paged()
    engine = Engine(model, Limits(model.block_size, 512, 256, 8), frozenset(), lambda _: None)
    saved = 0
    for seed in range(4):
        prompt = [*np.random.default_rng(seed).integers(0, 256, 20).tolist()] * 2
        alone = Sequence(prompt, Sampling(120, temperature=0.0, top_logprobs=2))
        got = run_engine(engine, [alone], [0])
        agree_with_reference([alone], got)
        assert alone.num_generated == 120
        saved += 120 - len(got[alone.id])
    assert saved > 0


class Broken:
    """A grammar whose parser raises once a token is accepted."""

    error = None

    def fill_mask(self, row: np.ndarray[Any, Any]) -> None:
        row[:] = -1

    def accept(self, token: int) -> None:
        raise RuntimeError("out of fuel")

    def finished(self) -> bool:
        return False

    def forced(self) -> list[int]:
        raise RuntimeError("out of fuel")

    def allowed(self, tokens: list[int]) -> int:
        return len(tokens)


@pytest.mark.parametrize("alone", [True, False])
def test_an_answer_that_cannot_be_sampled_ends_alone(alone: bool) -> None:
    model = tiny.paged()
    engine = Engine(model, Limits(model.block_size, 512, 64, 16), frozenset(), lambda _: None)
    overflowing = Sequence([1, 2, 3], Sampling(9, temperature=1.0, repetition_penalty=1e-40))
    broken = Sequence([4, 5], Sampling(9, temperature=0.0), constraint=Broken())
    sound = [] if alone else [Sequence([6], Sampling(9, temperature=t, top_logprobs=1)) for t in (0.0, 1.0)]
    sequences = [overflowing, *sound, broken]
    for group in [[s] for s in sequences] if alone else [sequences]:
        got = run_engine(engine, group, [0] * len(group))
        assert all(got[s.id][-1].finish == s.finish for s in group)
    assert [s.finish for s in sequences] == ["error", *["length" for _ in sound], "error"]
    assert all(s.num_generated == 9 for s in sound)


GUESSED = [
    Sampling(100, temperature=0.0, logit_bias=((7, 2.0), (9, -100.0))),
    Sampling(100, temperature=0.2, top_p=0.9, seed=5),
    Sampling(100, temperature=0.3, frequency_penalty=0.1, seed=6, top_logprobs=1),
    Sampling(100, temperature=1.0, seed=7),
]


@pytest.mark.parametrize("sampling", GUESSED, ids=["biased", "cool", "penalised", "warm"])
def test_guesses_change_no_token_however_it_is_chosen(sampling: Sampling, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.paged()

    def answers() -> tuple[list[list[int]], int]:
        engine = Engine(model, Limits(model.block_size, 512, 256, 8), frozenset(), lambda _: None)
        made = [Sequence([*np.random.default_rng(i).integers(0, 256, 20).tolist()] * 2, sampling) for i in range(3)]
        steps = sum(len(run_engine(engine, [one], [0])[one.id]) for one in made)
        return [one.tokens for one in made], steps

    guessing, steps = answers()
    monkeypatch.setattr(Lookup, "guess", lambda *_: [])
    assert answers() == (guessing, 300)
    assert steps < 300 or sampling.temperature == 1


@pytest.mark.parametrize("company", [1, 4])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_a_grammar_leaves_no_choice_of_comes_in_one_step(
    company: int, temperature: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = Tokenizer(tiny.write_folder(tmp_path / "m") / "tokenizer.json")
    grammar = Grammars(tokenizer, tiny.SPEC.vocab_size, [tiny.END]).regex('"a long beginning": [0-9]{3} "and a long end"', "x")
    model = tiny.paged()

    def answers() -> tuple[list[str], int]:
        engine = Engine(model, Limits(model.block_size, 512, 64, 8), frozenset([tiny.END]), lambda _: None)
        made = [
            Sequence([i, 9], Sampling(60, temperature=temperature, seed=i), constraint=grammar.start()) for i in range(company)
        ]
        run_engine(engine, made, [0] * company)
        assert {one.finish for one in made} == {"stop"}
        return [tokenizer.decode(one.tokens[2:]) for one in made], engine.stats().steps

    together, steps = answers()
    monkeypatch.setattr(GrammarConstraint, "forced", lambda _: [])
    monkeypatch.setattr(Lookup, "guess", lambda *_: [])
    one_by_one, more_steps = answers()
    assert together == one_by_one
    assert steps < more_steps / 3


def test_guessing_stops_where_it_fails_and_is_tried_again() -> None:
    lookup, text = Lookup(), [1, 2, 3, 4] * 8
    made: list[int] = []
    for _ in range(300):
        guesses = lookup.guess(text, 8)
        made.append(len(guesses))
        if guesses:
            lookup.learn(len(guesses), 0)
    assert 0 < sum(made[50:]) < 40
    for _ in range(100):
        guesses = lookup.guess(text, 8)
        if guesses:
            lookup.learn(len(guesses), len(guesses))
    assert lookup.length == 8


def test_wide_steps_share_the_cache_with_narrow_ones() -> None:
    half = {"KV_CACHE_PRECISION": "f16", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    narrow = tuple({**half, "INFERENCE_PRECISION_HINT": "f32"}.items())
    wide = tuple({**half, "INFERENCE_PRECISION_HINT": "f16"}.items())
    graph = build_decoder(tiny.SPEC, tiny.Weights(), lambda _: "fp16")
    model = PagedModel(graph, RunnerConfig(1 << 24, properties=narrow, wide_properties=wide))
    model.widen()
    prompt = np.random.default_rng(1).integers(0, 256, 100).tolist()
    model.run([Slice(prompt[:90], 0, range(4), 90)])  # wide
    ours = log_softmax(model.run([Slice(prompt[90:], 90, range(4), 0)]))  # narrow, on the wide step's keys
    exact = log_softmax(forward(tiny.SPEC, tiny.Weights(), prompt))[90:]
    divergence = (np.exp(exact) * (exact - ours)).sum(-1)  # half-precision keys: close, not equal
    assert divergence.max() < 0.01
    assert (ours.argmax(-1) == exact.argmax(-1)).mean() >= 0.9
