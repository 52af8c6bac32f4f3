"""Knowledge: files become passages that can be searched and cited."""

from noria.knowledge._document import Block, Document, Limits, PageSpan
from noria.knowledge._extractor import ExtractorPool
from noria.knowledge._filters import FileAttributes, Filter, parse_filter
from noria.knowledge._search import Hit, HybridSearch, Leg, Query, RankingOptions, Reranker, refuse_rewrite_query
from noria.knowledge._split import Chunking, CountTokens, Passage, split

__all__ = [
    "Block",
    "Chunking",
    "CountTokens",
    "Document",
    "ExtractorPool",
    "FileAttributes",
    "Filter",
    "Hit",
    "HybridSearch",
    "Leg",
    "Limits",
    "PageSpan",
    "Passage",
    "Query",
    "RankingOptions",
    "Reranker",
    "parse_filter",
    "refuse_rewrite_query",
    "split",
]
