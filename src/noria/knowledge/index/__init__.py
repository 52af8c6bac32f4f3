"""Indexes over passages: by vector and by word, embedded or in PostgreSQL, behind two Protocols and one contract suite."""

from noria.knowledge.index._contract import (
    AllowedFiles,
    Bools,
    Floats,
    Ints,
    Ranking,
    RebuildNeeded,
    TextIndex,
    VectorIndex,
    is_usable,
)
from noria.knowledge.index._faiss import FaissVectorIndex
from noria.knowledge.index._pgvector import PgVectorIndex
from noria.knowledge.index._tantivy import TantivyTextIndex
from noria.knowledge.index._terms import index_terms, matched_words, query_terms, segment

__all__ = [
    "AllowedFiles",
    "Bools",
    "FaissVectorIndex",
    "Floats",
    "Ints",
    "PgVectorIndex",
    "Ranking",
    "RebuildNeeded",
    "TantivyTextIndex",
    "TextIndex",
    "VectorIndex",
    "index_terms",
    "is_usable",
    "matched_words",
    "query_terms",
    "segment",
]
