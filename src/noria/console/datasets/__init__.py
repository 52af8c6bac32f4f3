"""The pages of datasets: the list, and one with its versions, rows, findings and changes."""

from noria.console.datasets._list import datasets_page
from noria.console.datasets._page import dataset_page

__all__ = ["dataset_page", "datasets_page"]
