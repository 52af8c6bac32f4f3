"""Runs code that must not touch the host, under bubblewrap: no network, no host files, limits on memory, time and processes."""

from ._bubblewrap import require_sandbox
from ._contract import Finished, Limits, Outcome, Stop
from ._run import run_python
from ._session import PythonSession

__all__ = ["Finished", "Limits", "Outcome", "PythonSession", "Stop", "require_sandbox", "run_python"]
