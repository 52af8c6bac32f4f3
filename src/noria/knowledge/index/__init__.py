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
)
from noria.knowledge.index._exact import ExactVectorIndex
from noria.knowledge.index._faiss import FaissVectorIndex
from noria.knowledge.index._tantivy import TantivyTextIndex
from noria.knowledge.index._terms import matched_words, query_terms

__all__ = [
    "AllowedFiles",
    "Bools",
    "ExactVectorIndex",
    "FaissVectorIndex",
    "Floats",
    "Ints",
    "Ranking",
    "RebuildNeeded",
    "TantivyTextIndex",
    "TextIndex",
    "VectorIndex",
    "matched_words",
    "query_terms",
]
