"""The pages of wheels: the list, and one drawn as what it is, with its turn under way and its history."""

from noria.console.wheel._list import wheels_page
from noria.console.wheel._page import wheel_page

__all__ = ["wheel_page", "wheels_page"]
