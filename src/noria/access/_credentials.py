"""Remote providers' keys: from the environment, or encrypted in the database (Fernet).

The instance's secret is `NORIA_SECRET_KEY`, or made once and kept in the home folder as `secret.key` (0600). Knows
nothing about providers beyond their names.
"""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

from sqlalchemy import select

from noria.errors import ConfigurationError, NotFound
from noria.store import DEFAULT_PROJECT, Credential, Database

__all__ = ["CredentialStore"]


class CredentialStore:
    def __init__(self, database: Database, home: Path, secret: str | None = None) -> None:
        self._database, self._home, self._secret = database, home, secret
        self._cache: dict[tuple[str, str], str | None] = {}  # None: looked for and not there

    async def get(self, provider: str, project_id: str = DEFAULT_PROJECT) -> str | None:
        """The stored key of a provider, decrypted, or None. Raises ConfigurationError when the secret has changed."""
        if (project_id, provider) in self._cache:
            return self._cache[project_id, provider]
        async with self._database.read() as session:
            row = await session.get(Credential, (project_id, provider))
        if row is None:
            self._cache[project_id, provider] = None
            return None
        from cryptography.fernet import InvalidToken

        try:
            value = self._fernet().decrypt(row.ciphertext).decode()
        except InvalidToken:
            raise ConfigurationError(
                f"The stored key of {provider} cannot be decrypted.",
                hint=f"The instance's secret changed; store it again: noria config credential {provider}",
            ) from None
        self._cache[project_id, provider] = value
        return value

    async def put(self, provider: str, value: str, project_id: str = DEFAULT_PROJECT) -> Credential:
        row = Credential(
            project_id=project_id,
            provider=provider,
            ciphertext=self._fernet().encrypt(value.encode()),
            hint=f"…{value[-4:]}",
        )
        async with self._database.write() as session:
            row = await session.merge(row)
        self._cache.pop((project_id, provider), None)
        return row

    async def list(self, project_id: str = DEFAULT_PROJECT) -> list[Credential]:
        async with self._database.read() as session:
            rows = await session.scalars(
                select(Credential).where(Credential.project_id == project_id).order_by(Credential.provider)
            )
            return list(rows)

    async def delete(self, provider: str, project_id: str = DEFAULT_PROJECT) -> None:
        async with self._database.write() as session:
            row = await session.get(Credential, (project_id, provider))
            if row is None:
                raise NotFound(f"No stored key for {provider!r}.", param="provider")
            await session.delete(row)
        self._cache.pop((project_id, provider), None)

    def _fernet(self):  # type: ignore[no-untyped-def]
        from cryptography.fernet import Fernet

        return Fernet(self._key())

    def _key(self) -> bytes:
        if self._secret:
            return base64.urlsafe_b64encode(hashlib.sha256(self._secret.encode()).digest())
        path = self._home / "secret.key"
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            return path.read_bytes()
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.urlsafe_b64encode(os.urandom(32)))
        return path.read_bytes()
