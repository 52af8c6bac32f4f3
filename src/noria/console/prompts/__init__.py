"""The pages of stored prompts: the list, and one with its versions, labels, differences and a place to try it."""

from noria.console.prompts._list import prompts_page
from noria.console.prompts._page import prompt_page

__all__ = ["prompt_page", "prompts_page"]
