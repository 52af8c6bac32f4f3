"""Who may do what: API keys with scopes, rate limits, encrypted provider credentials, SSRF-safe addresses."""

from ._addresses import check_public_url
from ._credentials import CredentialStore
from ._keys import SCOPES, IssuedKey, Keys, Principal, Scope
from ._limits import RateLimiter

__all__ = [
    "SCOPES",
    "CredentialStore",
    "IssuedKey",
    "Keys",
    "Principal",
    "RateLimiter",
    "Scope",
    "check_public_url",
]
