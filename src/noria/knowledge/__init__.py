"""Knowledge: files become passages that can be searched and cited. Pure: it stores nothing of its own."""

from noria.knowledge._document import Block, Document, Limits, PageSpan
from noria.knowledge._extractor import ExtractorPool
from noria.knowledge._split import Chunking, CountTokens, Passage, split

__all__ = ["Block", "Chunking", "CountTokens", "Document", "ExtractorPool", "Limits", "PageSpan", "Passage", "split"]
