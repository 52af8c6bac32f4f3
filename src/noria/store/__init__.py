"""State's one home: tables, migrations, sessions, pages of rows, blobs, backups. Knows no domain rules."""

from ._backup import backup, restore
from ._blobs import BlobRef, Blobs
from ._database import Database, sync_url
from ._ids import new_id
from ._pages import Cursor, Page, page
from ._tables import (
    DEFAULT_PROJECT,
    ApiKey,
    Base,
    Completion,
    Credential,
    File,
    FileBatch,
    Idempotency,
    Job,
    ModelEntry,
    Project,
    StoredPassage,
    StoredResponse,
    StoreFile,
    VectorStore,
)

__all__ = [
    "DEFAULT_PROJECT",
    "ApiKey",
    "Base",
    "BlobRef",
    "Blobs",
    "Completion",
    "Credential",
    "Cursor",
    "Database",
    "File",
    "FileBatch",
    "Idempotency",
    "Job",
    "ModelEntry",
    "Page",
    "Project",
    "StoreFile",
    "StoredPassage",
    "StoredResponse",
    "VectorStore",
    "backup",
    "new_id",
    "page",
    "restore",
    "sync_url",
]
