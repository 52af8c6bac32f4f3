"""What runs inside the walls before and around the user's code. Sent as text; the standard library only.

The first line of its standard input is a JSON object: `uid` candidates to become, resource `limits`, the library `path`, `files`
to lay down, the `source`, and how to run it: `run` once as a program, or `serve` calls of one function, one JSON line each.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any


def _become_nobody(candidates: list[int]) -> None:
    """An unused user id, so that nobody else's processes count towards its limit; where ids are few, `nobody`."""
    for uid in candidates if os.getuid() == 0 else []:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
        except OSError:
            continue
        return
    if os.getuid() == 0:
        sys.exit("the sandbox could not leave root")


def _limit(limits: dict[str, int]) -> None:
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))


def _lay_down(files: dict[str, str]) -> None:
    import base64

    for name, content in files.items():
        path = os.path.join("/tmp", name)  # noqa: PTH118
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        with open(path, "wb") as file:  # noqa: PTH123
            file.write(base64.b64decode(content))


def _quiet_input() -> int:
    """Standard input for us alone: the program's own is empty."""
    ours = os.dup(0)
    empty = os.open("/dev/null", os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    return ours


def _explain(error: BaseException) -> str:
    """The error and the line of the user's source that raised it."""
    place, line = error.__traceback__, None
    while place is not None:
        if place.tb_frame.f_code.co_filename == "main.py":
            line = place.tb_lineno
        place = place.tb_next
    where = f" (line {line})" if line is not None else ""
    return f"{type(error).__name__}: {error}{where}"[:2000]


def _serve(code: Any, function: str, requests: Any, results: Any) -> None:
    import gc
    import math

    for line in requests:
        reply: dict[str, Any]
        try:
            namespace: dict[str, Any] = {"__name__": "grader"}
            exec(code, namespace)  # noqa: S102
            value = namespace[function](*json.loads(line))
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                value = float(value)
            if not math.isfinite(value):
                raise ValueError(f"{function} returned {value}, which is not a finite number")
            reply = {"value": float(value)}
        except BaseException as error:
            reply = {"error": _explain(error)}
            error.__traceback__ = None
        namespace = {}
        results.write(json.dumps(reply) + "\n")
        results.flush()
        if "error" in reply:
            gc.collect()


def _main() -> None:
    requests = os.fdopen(_quiet_input(), "r", encoding="utf-8")
    head = json.loads(requests.readline())
    _become_nobody(head["uids"])
    sys.path += head["path"]
    _lay_down(head["files"])
    if head["mode"] == "serve":
        results = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
    _limit(head["limits"])
    try:
        code = compile(head["source"], "main.py", "exec")
    except SyntaxError as error:
        sys.exit(f"SyntaxError: {error}")
    if head["mode"] == "run":
        requests.close()
        sys.argv = ["main.py"]
        exec(code, {"__name__": "__main__"})  # noqa: S102
    else:
        _serve(code, head["function"], requests, results)  # pyright: ignore[reportPossiblyUnboundVariable]


if __name__ == "__main__":
    _main()
