"""Datasets: versioned rows with where they came from; in from files, feedback, traces and completions, curated, split, out again.

A row's content is `{"messages", "tools"?, "expected"?, "chosen"?, "rejected"?, "metadata"}`. Rows are split by their input, so
that none crosses from test to train in a later version; versions never change, save that rows of a deleted trace are erased.
"""

from ._collect import Collector, CompletionFilter, Expect, FeedbackPolicy, judge
from ._content import NewRow, Source, Split, answer_key, check_content, input_media, row_id_of, split_key, split_of
from ._curation import KINDS, CurationPolicy, FindingKind
from ._datasets import Datasets
from ._diff import Change, Diff, load_rows
from ._erase import Erased, Eraser, Gone, exported_files
from ._filling import Fill
from ._findings import Curation, Decision, FindingFilter, Findings
from ._importing import read_rows_of
from ._listing import RowFilter, list_rows
from ._progress import Report
from ._reading import Line, read_lines
from ._records import FORMATS, Format, read_record
from ._versions import Published, Row, Versions, alive, chunks
from ._writing import SUFFIX, FileWriter, to_record

__all__ = [
    "FORMATS",
    "KINDS",
    "SUFFIX",
    "Change",
    "Collector",
    "CompletionFilter",
    "Curation",
    "CurationPolicy",
    "Datasets",
    "Decision",
    "Diff",
    "Erased",
    "Eraser",
    "Expect",
    "FeedbackPolicy",
    "FileWriter",
    "Fill",
    "FindingFilter",
    "FindingKind",
    "Findings",
    "Format",
    "Gone",
    "Line",
    "NewRow",
    "Published",
    "Report",
    "Row",
    "RowFilter",
    "Source",
    "Split",
    "Versions",
    "alive",
    "answer_key",
    "check_content",
    "chunks",
    "exported_files",
    "input_media",
    "judge",
    "list_rows",
    "load_rows",
    "read_lines",
    "read_record",
    "read_rows_of",
    "row_id_of",
    "split_key",
    "split_of",
    "to_record",
]
