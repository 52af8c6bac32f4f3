"""Knowledge: files become passages that can be searched and cited."""

from noria.knowledge._answer import (
    NOT_IN_DOCUMENTS,
    EmbedTexts,
    GroundedPrompt,
    Quote,
    Relevance,
    Source,
    extract_answer,
    grounded_prompt,
)
from noria.knowledge._cite import CheckedAnswer, Citation, cite
from noria.knowledge._document import Block, Document, Limits, PageSpan
from noria.knowledge._extractor import ExtractorPool
from noria.knowledge._filters import FileAttributes, Filter, parse_filter
from noria.knowledge._ingest import Embedder
from noria.knowledge._kept_vectors import OpenVectors, embedded_vectors, pgvector_vectors
from noria.knowledge._knowledge import Knowledge
from noria.knowledge._retrieval import FoundPassage, as_result, explanation
from noria.knowledge._search import Hit, HybridSearch, Leg, Query, RankingOptions, refuse_rewrite_query
from noria.knowledge._split import Chunking, CountTokens, Passage, split
from noria.knowledge._stores import FileCounts, StoreView

__all__ = [
    "NOT_IN_DOCUMENTS",
    "Block",
    "CheckedAnswer",
    "Chunking",
    "Citation",
    "CountTokens",
    "Document",
    "EmbedTexts",
    "Embedder",
    "ExtractorPool",
    "FileAttributes",
    "FileCounts",
    "Filter",
    "FoundPassage",
    "GroundedPrompt",
    "Hit",
    "HybridSearch",
    "Knowledge",
    "Leg",
    "Limits",
    "OpenVectors",
    "PageSpan",
    "Passage",
    "Query",
    "Quote",
    "RankingOptions",
    "Relevance",
    "Source",
    "StoreView",
    "as_result",
    "cite",
    "embedded_vectors",
    "explanation",
    "extract_answer",
    "grounded_prompt",
    "parse_filter",
    "pgvector_vectors",
    "refuse_rewrite_query",
    "split",
]
