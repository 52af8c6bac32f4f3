"""Which key a call to a remote model carries, and where that key may go.

A card's `base_url` comes from a caller, a provider's key from the operator: a key is sent to the provider's own address or
to the one that the operator set in the environment, and nowhere else. Any other address has a key of its own, stored under
that address. So whoever may add models cannot have a key sent to themselves.
"""

from __future__ import annotations

from yarl import URL

from noria.access import CredentialStore
from noria.errors import InvalidRequest
from noria.settings import provider_key

from ._cards import ModelCard
from ._catalogue import ProviderSpec

__all__ = ["CardKey", "ProviderKeys", "origin_of"]

_MOST_CHARS = 128  # the column's width


def origin_of(url: str, *, param: str = "base_url") -> str:
    """`https://host` (with its port, unless it is the scheme's own) of a URL, read as the client that calls will read it."""
    try:
        origin = str(URL(url).origin())
    except ValueError:
        raise InvalidRequest(f"{param} = {url!r} is not an http(s) URL.", param=param) from None
    if not origin.startswith(("http://", "https://")) or len(origin) > _MOST_CHARS:
        raise InvalidRequest(f"{param} = {url!r} is not an http(s) URL with a host of ordinary length.", param=param)
    return origin


class ProviderKeys:
    def __init__(self, credentials: CredentialStore) -> None:
        self._credentials = credentials

    def of(self, card: ModelCard, spec: ProviderSpec, base_url: str, project_id: str) -> CardKey:
        """What finds the key for this card's calls to `base_url`."""
        return CardKey(self._credentials, card, spec, base_url, project_id)


class CardKey:
    """The key of one card. Where it may go is decided once, when this is made; which it is, at each call."""

    def __init__(self, credentials: CredentialStore, card: ModelCard, spec: ProviderSpec, base_url: str, project_id: str) -> None:
        self._credentials, self._card, self._spec, self._project_id = credentials, card, spec, project_id
        self._origin = origin_of(base_url)
        self._is_own = self._origin in _own_origins(spec)

    async def find(self) -> str | None:
        """The provider's from the environment, the provider's that was stored, the address's that was stored, or None."""
        if self._is_own:
            key = provider_key(self._spec.key_env) if self._spec.key_env else None
            key = key or await self._credentials.get(self._card.provider or "", self._project_id)
            if key is not None:
                return key
        return await self._credentials.get(self._origin, self._project_id)

    async def require(self) -> str | None:
        """As `find`, but raises InvalidRequest where the provider needs a key and there is none to send."""
        key = await self.find()
        if key is not None or self._spec.keyless:
            return key
        card, spec = self._card, self._spec
        if self._is_own:
            raise InvalidRequest(
                f"No key for {spec.title} is set, which {card.id} needs.",
                code="missing_credential",
                hint=f"Set {spec.key_env} in the server's environment, or run: noria config credential {card.provider}",
            )
        raise InvalidRequest(
            f"{card.id} leads to {self._origin}, and the key of {spec.title} is not sent there.",
            code="missing_credential",
            hint=f"Store a key for that address: noria config credential {self._origin}",
        )


def _own_origins(spec: ProviderSpec) -> set[str]:
    urls = [spec.base_url, provider_key(spec.base_url_env) if spec.base_url_env else None]
    return {origin_of(url) for url in urls if url}
