"""Knowledge: files become passages that can be searched and cited."""

from noria.knowledge._document import Block, Document, Limits, PageSpan
from noria.knowledge._extractor import ExtractorPool
from noria.knowledge._filters import FileAttributes, Filter, parse_filter
from noria.knowledge._ingest import Embedder
from noria.knowledge._knowledge import Knowledge
from noria.knowledge._retrieval import FoundPassage, as_result, explanation
from noria.knowledge._search import Hit, HybridSearch, Leg, Query, RankingOptions, Reranker, refuse_rewrite_query
from noria.knowledge._split import Chunking, CountTokens, Passage, split
from noria.knowledge._stores import FileCounts, StoreView

__all__ = [
    "Block",
    "Chunking",
    "CountTokens",
    "Document",
    "Embedder",
    "ExtractorPool",
    "FileAttributes",
    "FileCounts",
    "Filter",
    "FoundPassage",
    "Hit",
    "HybridSearch",
    "Knowledge",
    "Leg",
    "Limits",
    "PageSpan",
    "Passage",
    "Query",
    "RankingOptions",
    "Reranker",
    "StoreView",
    "as_result",
    "explanation",
    "parse_filter",
    "refuse_rewrite_query",
    "split",
]
