"""Settings: what they are, their defaults, and where each value came from.

The only module that reads the environment. Later sources win: defaults, then `noria.toml` (in the home folder, or where
`NORIA_CONFIG` points), then `NORIA_*` variables, then command-line options. Knows nothing about what the
settings are used for.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError, ValidationInfo, field_validator

from .errors import ConfigurationError

__all__ = ["Loaded", "Settings", "load", "provider_key"]

_GIB = 1024**3


class Settings(BaseModel):
    """Every setting of one Noria instance. In `noria.toml` the keys are the field names; variables are `NORIA_<FIELD>`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    home: Path = Field(description="Folder with the database, blobs, indexes, traces and logs of this instance.")
    cache: Path = Field(description="Folder for pulled model weights; several instances may share it.")
    host: str = Field("127.0.0.1", description="Address to listen on. Anything but loopback needs an API key to exist.")
    port: int = Field(8420, ge=0, le=65535, description="Port of the API; 0 lets the system choose.")
    console: bool = Field(True, description="Start the web console beside the API.")
    console_port: int | None = Field(None, ge=0, le=65535, description="Port of the console; default: port + 1.")

    database_url: SecretStr | None = Field(
        None, description="SQLAlchemy URL, e.g. postgresql://user:pw@host/db. Default: SQLite in the home folder."
    )
    blobs_url: str | None = Field(None, description="fsspec URL of the blob store, e.g. s3://bucket/prefix.")
    vector_index: Literal["embedded", "pgvector"] = Field(
        "embedded", description="Where vectors are indexed: beside the server, or in the PostgreSQL of database_url."
    )
    secret_key: SecretStr | None = Field(
        None, description="Key that encrypts stored credentials. Default: made once, kept in the home folder (0600)."
    )

    chat_model: str = Field("smollm2-135m-instruct", description="Model behind the aliases for chat and completions.")
    embedding_model: str = Field("multilingual-e5-small", description="Model that embeds documents and queries.")
    aliases: dict[str, str] | None = Field(
        None,
        description="Names that programs hard-code, and the model each stands for. Default: a built-in table; {} for none.",
    )
    engine_memory_mb: int = Field(6144, ge=256, description="Memory budget of all engine processes together, in MiB.")
    engine_threads: int = Field(0, ge=0, description="Threads of one engine; 0: as many as physical cores.")

    train_memory_mb: int = Field(0, ge=0, description="Memory of one training process, in MiB; 0: half of this machine's.")
    train_threads: int = Field(0, ge=0, description="Threads of a training; 0: as many as physical cores.")
    train_concurrency: int = Field(1, ge=1, le=16, description="Trainings at once; others are queued.")
    train_command: str | None = Field(
        None, description="Command that runs a training instead of `python -m noria.training`, on this machine's files."
    )

    max_body_mb: int = Field(64, ge=1, description="Largest JSON request body, in MiB.")
    max_file_mb: int = Field(512, ge=1, description="Largest uploaded file, in MiB.")
    requests_per_minute: int = Field(0, ge=0, description="Default rate limit of a key; 0: none.")
    max_concurrent_requests: int = Field(512, ge=1, description="Model calls in flight before new ones get a 429.")
    request_timeout_s: float = Field(600.0, gt=0, description="Longest time a model call may take, its retries included.")
    eval_concurrency: int = Field(32, ge=1, le=1024, description="Rows of an eval's run that are asked and graded at once.")
    allow_private_urls: bool = Field(False, description="Let models' base URLs point at private or loopback addresses.")
    allow_engine_commands: bool = Field(
        False, description="Let admins add engines that run a command (llama-server, vLLM) on this machine."
    )

    trace_content: bool = Field(True, description="Keep inputs and outputs in traces; off keeps figures only.")
    trace_retention_days: float = Field(30.0, gt=0, description="Traces older than this are deleted.")
    trace_max_mb: int = Field(20 * 1024, ge=16, description="Traces above this total size are deleted, oldest first.")

    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("aliases")
    @classmethod
    def _lead_somewhere(cls, aliases: dict[str, str] | None, info: ValidationInfo) -> dict[str, str] | None:
        """`chat` and `embedding` stand for the two default models. A name that stands for itself is no alias."""
        defaults = {"chat": info.data.get("chat_model"), "embedding": info.data.get("embedding_model")}
        for name in aliases or {}:
            path = [name]
            while aliases and (target := aliases.get(path[-1])) is not None:
                target = defaults.get(target) or target
                if target == path[-1]:
                    break
                if target in path:
                    raise ValueError(f"the aliases go in a circle: {' → '.join([*path[path.index(target) :], target])}")
                path.append(target)
        return aliases

    @property
    def models_dir(self) -> Path:
        return self.cache / "models"

    @property
    def run_dir(self) -> Path:
        """Sockets and locks; short, for a Unix socket's path may have 107 bytes at most."""
        return self.home / "run"

    @property
    def database(self) -> str:
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.home / 'noria.db'}"

    @property
    def blobs(self) -> str:
        return self.blobs_url or str(self.home / "blobs")

    @property
    def loopback(self) -> bool:
        return self.host in {"127.0.0.1", "::1", "localhost"} or self.host.startswith("127.")


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings with the origin of each value: `default`, a file's path, `NORIA_X`, or `command line`."""

    settings: Settings
    origins: Mapping[str, str]

    def rows(self) -> list[dict[str, Any]]:
        """One row a setting for people: name, value (secrets masked), origin, description."""
        out: list[dict[str, Any]] = []
        for name, field in Settings.model_fields.items():
            value = getattr(self.settings, name)
            shown = "********" if isinstance(value, SecretStr) else str(value) if isinstance(value, Path) else value
            out.append({"name": name, "value": shown, "origin": self.origins[name], "description": field.description or ""})
        return out


def load(
    overrides: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Reads the settings. `overrides` come from the command line; entries that are None are ignored.

    Raises ConfigurationError naming the setting, its value and its source.
    """
    env = os.environ if environ is None else environ
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    values: dict[str, Any] = {"home": _default_home(env), "cache": _default_cache(env)}
    origins = dict.fromkeys(Settings.model_fields, "default")

    from_env = {name: env[f"NORIA_{name.upper()}"] for name in Settings.model_fields if f"NORIA_{name.upper()}" in env}
    home = Path(given.get("home") or from_env.get("home") or values["home"])
    for path in _config_files(env, home):
        for name, value in _read_toml(path).items():
            if name not in Settings.model_fields:
                raise ConfigurationError(
                    f"{path}: {name!r} is not a setting.", param=name, hint="`noria config show` lists them all."
                )
            values[name], origins[name] = value, str(path)
    for name, text in from_env.items():
        values[name], origins[name] = _parse_env(name, text), f"NORIA_{name.upper()}"
    for name, value in given.items():
        values[name], origins[name] = value, "command line"
    for name in ("home", "cache"):
        values[name] = Path(values[name]).expanduser().absolute()
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise ConfigurationError(
            f"{name} = {first['input']!r} (from {origins.get(name, '?')}): {first['msg']}.", param=name
        ) from None
    return Loaded(settings, origins)


def provider_key(variable: str, *, environ: Mapping[str, str] | None = None) -> str | None:
    """A remote provider's API key from the environment, or None. Empty counts as absent."""
    return (os.environ if environ is None else environ).get(variable) or None


def _default_home(env: Mapping[str, str]) -> Path:
    return Path(env.get("HOME", "~")).expanduser() / ".noria"


def _default_cache(env: Mapping[str, str]) -> Path:
    base = env.get("XDG_CACHE_HOME") or str(Path(env.get("HOME", "~")).expanduser() / ".cache")
    return Path(base) / "noria"


def _config_files(env: Mapping[str, str], home: Path) -> list[Path]:
    if named := env.get("NORIA_CONFIG"):
        path = Path(named)
        if not path.is_file():
            raise ConfigurationError(f"NORIA_CONFIG points at {named}, which is not a file.")
        return [path]
    path = home.expanduser() / "noria.toml"
    return [path] if path.is_file() else []


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}.") from None


def _parse_env(name: str, text: str) -> Any:
    if name == "aliases":
        try:
            return TypeAdapter(dict[str, str]).validate_json(text)
        except ValidationError:
            raise ConfigurationError(f'NORIA_ALIASES = {text!r} is not a JSON object like {{"gpt-4o": "my-model"}}.') from None
    if text == "" and Settings.model_fields[name].default is None:
        return None
    return text
