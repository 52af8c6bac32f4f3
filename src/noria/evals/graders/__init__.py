"""Graders: one file each, found by type. Each checks its own templates and grades one row."""

from ._contract import Grade, GradeFailed, Grader, Row, Tools
from ._registry import grader_types, parse_grader

__all__ = ["Grade", "GradeFailed", "Grader", "Row", "Tools", "grader_types", "parse_grader"]
