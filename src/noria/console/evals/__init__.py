"""The pages of evals: the list, one with its runs, one run with its rows, two runs compared."""

from noria.console.evals._comparison import comparison_page
from noria.console.evals._list import evals_page
from noria.console.evals._page import eval_page
from noria.console.evals._run import run_page

__all__ = ["comparison_page", "eval_page", "evals_page", "run_page"]
