"""What a database's failure means for a caller: the disk is full, it is busy, it is away, the text cannot be stored.

Sources: https://www.postgresql.org/docs/current/errcodes-appendix.html, https://docs.sqlalchemy.org/en/20/core/pooling.html
"""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionInTime

from noria.errors import DatabaseUnavailable, InvalidRequest, NoriaError

__all__ = ["explain_failure"]

# Shut down by an administrator, after a crash, not yet started; too many clients.
_AWAY = {"57P01", "57P02", "57P03", "53300"}


def explain_failure(error: Exception) -> NoriaError | None:
    """The error to raise for what a database or its driver raised; None where it is nobody's failure but ours."""
    text = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    if "disk is full" in text or "No space left" in text:
        return DatabaseUnavailable(
            "The disk of the database is full.",
            code="disk_full",
            hint="Free some space; nothing was half-written.",
            retry_after_s=30,
        )
    if "invalid byte sequence" in text or "\\u0000 cannot be converted" in text or "unsupported Unicode escape" in text:
        return InvalidRequest("A text in the request holds a NUL character, which cannot be stored.", code="invalid_value")
    if "too large to convert to SQLite" in text or "value out of int32 range" in text or "value out of int64 range" in text:
        return InvalidRequest("A whole number in the request is too large to be stored.", code="invalid_value")
    if "database is locked" in text:
        return DatabaseUnavailable("The database is busy.", code="database_busy", hint="Try again.", retry_after_s=1)
    if _is_away(error):
        return DatabaseUnavailable(
            "The database does not answer.",
            code="database_unavailable",
            hint="Try again; Noria goes on by itself as soon as the database is back.",
            retry_after_s=5,
        )
    return None


def _is_away(error: Exception) -> bool:
    if isinstance(error, NoConnectionInTime) or (isinstance(error, DBAPIError) and error.connection_invalidated):
        return True
    cause = error.orig if isinstance(error, DBAPIError) else error
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    if state:
        return str(state).startswith("08") or state in _AWAY
    if isinstance(cause, OSError):  # asyncpg leaves a refused connection, and a time-out, as the system's own error
        return True
    # psycopg: neither a connection nor a status of the server's.
    return type(cause).__name__ == "OperationalError" and type(cause).__module__.startswith("psycopg")
