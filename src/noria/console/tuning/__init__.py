"""The pages of fine-tuning: the list of jobs, and one with its loss as it falls, events and checkpoints."""

from noria.console.tuning._list import tuning_page
from noria.console.tuning._page import job_page

__all__ = ["job_page", "tuning_page"]
