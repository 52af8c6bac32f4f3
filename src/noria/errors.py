"""Every error that Noria raises on purpose, in one tree.

* NoriaError
  + InvalidRequest            400  the caller sent something wrong; `param` names the field
    - UnsupportedField        400  OpenAI has the field, Noria does not honour it (yet)
    - ContextTooLong          400  prompt plus requested output does not fit the model
  + AuthenticationFailed      401  no key, or an unknown or revoked one
  + PermissionDenied          403  the key lacks the scope
  + NotFound                  404
  + Conflict                  409  the state does not allow it (or an idempotency key was reused)
  + PayloadTooLarge           413
  + RateLimited               429  carries `retry_after_s`
  + ConfigurationError        500  a setting that Noria cannot start with
  + MissingExtra              501  an optional dependency; the message holds the exact `pip install`
  + NotBuilt                  501  a part of OpenAI's API that Noria does not have
  + UpstreamError             502  a remote model's API failed in a way retrying did not mend
  + Unavailable               503  an engine is starting, restarting or full; carries `retry_after_s`
    - DatabaseUnavailable     503  Noria's own database is away, busy or its disk is full; jobs wait for it
  + UpstreamTimeout           504

Each carries what OpenAI's clients read (`message`, `type`, `param`, `code`) so that their own exception classes come
out, plus `hint`: what the reader should do next. Expected failures are these and print no traceback; anything else
is a bug. Source of the shape: https://platform.openai.com/docs/guides/error-codes
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "AuthenticationFailed",
    "ConfigurationError",
    "Conflict",
    "ContextTooLong",
    "DatabaseUnavailable",
    "InvalidRequest",
    "MissingExtra",
    "NoriaError",
    "NotBuilt",
    "NotFound",
    "PayloadTooLarge",
    "PermissionDenied",
    "RateLimited",
    "Unavailable",
    "UnsupportedField",
    "UpstreamError",
    "UpstreamTimeout",
]


class NoriaError(Exception):
    """An expected failure: what failed, with which value, and what to do.

    `param` is the path of the offending field (`messages[0].role`), `code` a stable machine-readable word,
    `retry_after_s` seconds after which the same call may succeed. `variant` is the route's choice that failed, where a
    route had chosen: the trace says it.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str | None] = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        hint: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code if code is not None else self.default_code
        self.hint = hint
        self.retry_after_s = retry_after_s
        self.variant: str | None = None

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message

    def to_dict(self) -> dict[str, Any]:
        """The body of OpenAI's `{"error": …}`; the hint is part of the message, for clients print only that."""
        return {"message": str(self), "type": self.type, "param": self.param, "code": self.code}


class InvalidRequest(NoriaError):
    status = 400
    type = "invalid_request_error"


class UnsupportedField(InvalidRequest):
    default_code = "unsupported_parameter"


class ContextTooLong(InvalidRequest):
    default_code = "context_length_exceeded"


class AuthenticationFailed(NoriaError):
    status = 401
    type = "authentication_error"
    default_code = "invalid_api_key"


class PermissionDenied(NoriaError):
    status = 403
    type = "permission_error"
    default_code = "insufficient_permissions"


class NotFound(NoriaError):
    status = 404
    type = "invalid_request_error"
    default_code = "not_found"


class Conflict(NoriaError):
    status = 409
    type = "invalid_request_error"
    default_code = "conflict"


class PayloadTooLarge(NoriaError):
    status = 413
    type = "invalid_request_error"
    default_code = "payload_too_large"


class RateLimited(NoriaError):
    status = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"


class ConfigurationError(NoriaError):
    default_code = "configuration_error"


class MissingExtra(NoriaError):
    """An optional dependency is not installed. `extra` is the name in `pip install "noria-llm[extra]"`."""

    status = 501
    type = "invalid_request_error"
    default_code = "missing_extra"

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional part of Noria.", hint=f'Run: pip install "noria-llm[{extra}]"')


class NotBuilt(NoriaError):
    status = 501
    type = "invalid_request_error"
    default_code = "not_implemented"


class UpstreamError(NoriaError):
    status = 502
    type = "api_error"
    default_code = "upstream_error"


class Unavailable(NoriaError):
    status = 503
    type = "server_error"
    default_code = "unavailable"


class DatabaseUnavailable(Unavailable):
    """Never an upstream's: what raises it may be done again as it was, as soon as the database is back."""

    default_code = "database_unavailable"


class UpstreamTimeout(NoriaError):
    status = 504
    type = "api_error"
    default_code = "upstream_timeout"
