"""Durable work: jobs that survive `kill -9`, with progress that people can watch."""

from ._jobs import JobContext, Jobs, JobView
from ._patience import patiently

__all__ = ["JobContext", "JobView", "Jobs", "patiently"]
