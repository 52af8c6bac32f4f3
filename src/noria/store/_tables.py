"""The tables: one row class each, used as plain records above.

Every row belongs to a project. Times are Unix seconds. JSON columns are JSONB on PostgreSQL. What changes here
needs a migration in `migrations/versions/`; a test compares the two.
"""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import JSON, BigInteger, Float, ForeignKey, Index, Integer, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = [
    "BIG_ID",
    "DEFAULT_PROJECT",
    "ApiKey",
    "Base",
    "Completion",
    "Credential",
    "File",
    "FileBatch",
    "Idempotency",
    "Job",
    "ModelEntry",
    "Project",
    "StoreFile",
    "StoredPassage",
    "StoredResponse",
    "VectorStore",
    "now",
]

DEFAULT_PROJECT = "proj_default"
_Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
BIG_ID = BigInteger().with_variant(Integer(), "sqlite")


def now() -> int:
    return int(time.time())


class Base(DeclarativeBase):
    type_annotation_map = {dict[str, Any]: _Json, list[Any]: _Json, dict[str, str]: _Json}  # noqa: RUF012


class Project(Base):
    __tablename__ = "project"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(256))
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)


class ApiKey(Base):
    """`digest` is the key's SHA-256: 256 random bits need no slow hash. `prefix` is what people recognise it by."""

    __tablename__ = "api_key"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), index=True)
    name: Mapped[str] = mapped_column(String(256))
    prefix: Mapped[str] = mapped_column(String(32))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[Any]]
    requests_per_minute: Mapped[int | None] = mapped_column(Integer)
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)
    expires_at: Mapped[int | None] = mapped_column(BigInteger)
    last_used_at: Mapped[int | None] = mapped_column(BigInteger)
    revoked_at: Mapped[int | None] = mapped_column(BigInteger)


class Credential(Base):
    """A remote provider's key, encrypted with the instance's secret (Fernet)."""

    __tablename__ = "credential"
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), primary_key=True)
    provider: Mapped[str] = mapped_column(String(128), primary_key=True)
    ciphertext: Mapped[bytes] = mapped_column(LargeBinary)
    hint: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)


class ModelEntry(Base):
    """A model or route that a user added; `spec` is a card as in the built-in catalogue."""

    __tablename__ = "model_entry"
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), primary_key=True)
    id: Mapped[str] = mapped_column(String(256), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    spec: Mapped[dict[str, Any]]
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)


class File(Base):
    __tablename__ = "file"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), index=True)
    filename: Mapped[str] = mapped_column(String(1024))
    purpose: Mapped[str] = mapped_column(String(64))
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    origin: Mapped[dict[str, Any] | None]
    """What Noria made it of: `{"kind": "dataset", "dataset_id", "version", "split"}`; None for an upload."""
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)
    expires_at: Mapped[int | None] = mapped_column(BigInteger)


class VectorStore(Base):
    __tablename__ = "vector_store"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), index=True)
    name: Mapped[str] = mapped_column(String(512), default="")
    description: Mapped[str | None] = mapped_column(Text)
    meta: Mapped[dict[str, Any]]
    embedding_model: Mapped[str] = mapped_column(String(256))
    dimensions: Mapped[int] = mapped_column(Integer)
    expires_after_days: Mapped[int | None] = mapped_column(Integer)
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)
    last_active_at: Mapped[int] = mapped_column(BigInteger, default=now)


class FileBatch(Base):
    __tablename__ = "file_batch"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), index=True)
    store_id: Mapped[str] = mapped_column(ForeignKey("vector_store.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)


class StoreFile(Base):
    """A file in a vector store. `generation` is the live one: passages of another are invisible and swept later."""

    __tablename__ = "store_file"
    __table_args__ = (
        UniqueConstraint("store_id", "file_id"),
        {"sqlite_autoincrement": True},  # an ordinal is never used again: a job may still hold it
    )
    ordinal: Mapped[int] = mapped_column(BIG_ID, primary_key=True, autoincrement=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"))
    store_id: Mapped[str] = mapped_column(ForeignKey("vector_store.id", ondelete="CASCADE"), index=True)
    file_id: Mapped[str] = mapped_column(ForeignKey("file.id"), index=True)
    batch_id: Mapped[str | None] = mapped_column(String(64), index=True)
    status: Mapped[str] = mapped_column(String(16), default="in_progress")
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_message: Mapped[str | None] = mapped_column(Text)
    attributes: Mapped[dict[str, Any]]
    chunking: Mapped[dict[str, Any]]
    text_sha256: Mapped[str | None] = mapped_column(String(64))
    generation: Mapped[int] = mapped_column(Integer, default=0)
    usage_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    num_passages: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)


class StoredPassage(Base):
    """One retrievable piece of a file: `text` is exactly `document[start:end]`; `vector` is float32, little-endian."""

    __tablename__ = "passage"
    __table_args__ = (
        Index("ix_passage_file", "file_ordinal", "generation", "position"),
        Index("ix_passage_sha256", "store_id", "sha256"),
        {"sqlite_autoincrement": True},  # an id is never used again: indexes know passages by it
    )
    id: Mapped[int] = mapped_column(BIG_ID, primary_key=True, autoincrement=True)
    store_id: Mapped[str] = mapped_column(ForeignKey("vector_store.id", ondelete="CASCADE"))
    file_ordinal: Mapped[int] = mapped_column(ForeignKey("store_file.ordinal", ondelete="CASCADE"))
    generation: Mapped[int] = mapped_column(Integer)
    position: Mapped[int] = mapped_column(Integer)
    sha256: Mapped[str] = mapped_column(String(64))
    text: Mapped[str] = mapped_column(Text)
    context: Mapped[str] = mapped_column(Text, default="")
    start: Mapped[int] = mapped_column(Integer)
    end: Mapped[int] = mapped_column(Integer)
    page: Mapped[int | None] = mapped_column(Integer)
    last_page: Mapped[int | None] = mapped_column(Integer)
    heading_path: Mapped[list[Any]]
    places: Mapped[list[Any]] = mapped_column(default=list)  # [offset, page, heading path], where they change inside it
    num_tokens: Mapped[int] = mapped_column(Integer)
    vector: Mapped[bytes] = mapped_column(LargeBinary)


class Completion(Base):
    """A stored chat completion: what was asked and what was answered, whole."""

    __tablename__ = "completion"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), index=True)
    model: Mapped[str] = mapped_column(String(256), index=True)
    request: Mapped[dict[str, Any]]
    response: Mapped[dict[str, Any]]
    meta: Mapped[dict[str, Any]]
    trace_id: Mapped[str | None] = mapped_column(String(32), index=True)
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)


class StoredResponse(Base):
    """A stored response: its own input items and the object as answered; the history is the chain of `previous_id`."""

    __tablename__ = "response"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), index=True)
    previous_id: Mapped[str | None] = mapped_column(String(64), index=True)
    input_items: Mapped[list[Any]]
    body: Mapped[dict[str, Any]]
    trace_id: Mapped[str | None] = mapped_column(String(32), index=True)
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)


class Idempotency(Base):
    __tablename__ = "idempotency"
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(256), primary_key=True)
    request_sha256: Mapped[str] = mapped_column(String(64))
    status: Mapped[int | None] = mapped_column(Integer)
    media_type: Mapped[str | None] = mapped_column(String(128))
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)


class Job(Base):
    """What people see of a durable piece of work; the work's own state is the job runner's."""

    __tablename__ = "job"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), index=True)
    kind: Mapped[str] = mapped_column(String(64), index=True)
    subject: Mapped[str] = mapped_column(String(256), index=True)
    status: Mapped[str] = mapped_column(String(16), index=True)
    done: Mapped[float] = mapped_column(Float, default=0.0)
    total: Mapped[float | None] = mapped_column(Float)
    unit: Mapped[str] = mapped_column(String(32), default="")
    detail: Mapped[dict[str, Any]]
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[int] = mapped_column(BigInteger, default=now)
    updated_at: Mapped[int] = mapped_column(BigInteger, default=now)
