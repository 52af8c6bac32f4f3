"""Whether a database refused the values it was given, or could not write at all.

Sources: https://www.postgresql.org/docs/current/errcodes-appendix.html, https://www.sqlite.org/rescode.html
"""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnectionInTime

__all__ = ["is_refusal"]

# SQLITE_ERROR, TOOBIG, CONSTRAINT, MISMATCH, MISUSE, RANGE
_SQLITE = {1, 18, 19, 20, 21, 25}
# Data exceptions, constraints, statements that cannot be, limits (an index row too large)
_POSTGRES = {"22", "23", "42", "54"}


def is_refusal(error: Exception) -> bool:
    """True when the same values would be refused again: the rows are at fault, not the database."""
    if isinstance(error, NoConnectionInTime):
        return False
    if not isinstance(error, DBAPIError):  # values that no statement can be made of
        return isinstance(error, SQLAlchemyError | ValueError | OverflowError)
    if state := getattr(error.orig, "sqlstate", None):
        return state[:2] in _POSTGRES
    if (code := getattr(error.orig, "sqlite_errorcode", None)) is not None:
        return code & 0xFF in _SQLITE
    return not error.connection_invalidated and not isinstance(error, OperationalError)
