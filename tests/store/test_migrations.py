"""A migration that is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

KILLED = """
import itertools, os, signal, sys
from pathlib import Path
from sqlalchemy import Engine, event
from noria.store._database import _is_current, _migrate

left = 0

def count(connection, cursor, statement, *_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

event.listen(Engine, "after_cursor_execute", count)
path, step = sys.argv[1], int(sys.argv[2])
kills = 0
for left in itertools.count(1, step):
    for name in ("", "-wal", "-shm"):
        Path(path + name).unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        _migrate(f"sqlite:///{path}")
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
    kills += 1
    left = 0
    _migrate(f"sqlite:///{path}")
    assert _is_current(path)
print(kills)
"""


@pytest.mark.parametrize("step", [17, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_a_process_killed_at_any_statement_of_a_migration_starts_again(tmp_path: Path, step: int) -> None:
    program = [sys.executable, "-c", KILLED, str(tmp_path / "noria.db"), str(step)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) >= 100 // step
