"""What a child process is told of the server's environment: never the secrets that lie there.

Noria's own programs read files of strangers; they get what a program needs to run and nothing that is worth stealing. A
command that an operator wrote (vLLM, a training on other hardware) may need anything, so it gets all but secrets; a token of
a hub is among what it may need.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

__all__ = ["environment_of_a_command", "environment_of_our_own"]

_NAMES = frozenset(
    """
    PATH HOME USER LOGNAME SHELL TERM LANG LANGUAGE TZ TMPDIR TMP TEMP LD_LIBRARY_PATH LD_PRELOAD VIRTUAL_ENV
    SSL_CERT_FILE SSL_CERT_DIR HF_HOME HF_HUB_CACHE HF_HUB_OFFLINE
    """.split()  # noqa: SIM905
)
# Interpreters, numbers of threads, allocators, accelerators.
_PREFIXES = tuple(
    """
    LC_ PYTHON XDG_ COVERAGE_ OTEL_ OMP_ GOMP_ KMP_ MKL_ OPENBLAS_ NUMEXPR_ VECLIB_ TBB_ MALLOC_ OV_ OPENVINO_ ONEDNN_ DNNL_
    ONEAPI_ ZE_ SYCL_ CUDA_ NVIDIA_ NCCL_ CUBLAS_ CUDNN_ HIP_ ROCR_ ROCM_ HSA_ GPU_ TORCH PYTORCH_ TRITON_ TOKENIZERS_
    TRANSFORMERS_
    """.split()  # noqa: SIM905
)
_SECRET_ENDINGS = ("_API_KEY", "_SECRET_KEY", "_ACCESS_KEY", "_SECRET", "_PASSWORD", "_PASSWD", "DATABASE_URL")
_SECRETS = frozenset({"PGPASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN"})


def environment_of_our_own(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """For a program of Noria's that fetches nothing."""
    given = os.environ if environ is None else environ
    return {
        name: value
        for name, value in environment_of_a_command(given).items()
        if (name in _NAMES or name.startswith(_PREFIXES)) and not name.endswith("_TOKEN")
    }


def environment_of_a_command(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """For a command of the operator's: all but Noria's settings, keys of providers, of stores and of databases."""
    given = os.environ if environ is None else environ
    return {name: value for name, value in given.items() if not _is_secret(name.upper())}


def _is_secret(name: str) -> bool:
    return name.startswith("NORIA_") or name.endswith(_SECRET_ENDINGS) or name in _SECRETS
