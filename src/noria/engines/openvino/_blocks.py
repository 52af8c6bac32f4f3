"""The pool of key/value blocks: who holds which, and which full blocks can be shared by their content.

Knows nothing about models or requests: a block is a number. Invariants, checked by `check`:
* every block is exactly one of *held* (references ≥ 1), *cached* (references 0, contents worth keeping) or *blank*;
* a digest maps to one block, and that block's digest is the same;
* a cached block is reclaimed, oldest first, only when no blank one is left.

A full block's digest covers its tokens, the digest of the block before it and a salt (the adapter's name), so equal
digests mean equal keys and values. 128 bits of BLAKE2b: a collision is not a practical concern.

Learned from: Kwon et al. 2023 (arXiv:2309.06180) and nano-vllm's block manager.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["BlockPool", "chain_digest"]


def chain_digest(parent: bytes, tokens: Sequence[int] | np.ndarray[Any, Any]) -> bytes:
    """The digest of a full block, given the one before it (or the salt, for a first block)."""
    return hashlib.blake2b(np.asarray(tokens, np.int32).tobytes(), digest_size=16, key=parent).digest()


class BlockPool:
    """Reference-counted blocks numbered 0 to `num_blocks` - 1."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._references = [0] * num_blocks
        self._digests: list[bytes | None] = [None] * num_blocks
        self._by_digest: dict[bytes, int] = {}
        self._blank = list(range(num_blocks - 1, -1, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()

    @property
    def num_free(self) -> int:
        """Blocks that `take` could give now, blank or cached."""
        return len(self._blank) + len(self._cached)

    def take(self) -> int:
        """One block with one reference and no contents; the caller has checked `num_free`."""
        if self._blank:
            block = self._blank.pop()
        else:
            block, _ = self._cached.popitem(last=False)
            digest = self._digests[block]
            assert digest is not None
            del self._by_digest[digest]
            self._digests[block] = None
        self._references[block] = 1
        return block

    def share(self, digest: bytes) -> int | None:
        """A block with these contents and one more reference, if there is one."""
        block = self._by_digest.get(digest)
        if block is None:
            return None
        if self._references[block] == 0:
            del self._cached[block]
        self._references[block] += 1
        return block

    def publish(self, block: int, digest: bytes) -> None:
        """Says that a held block is now full, with these contents. The first of two equal blocks stays the known one."""
        assert self._references[block] > 0
        if digest not in self._by_digest and self._digests[block] is None:
            self._by_digest[digest] = block
            self._digests[block] = digest

    def release(self, blocks: Sequence[int]) -> None:
        """Gives back one reference of each; deeper blocks become the older ones, so that a chain shrinks from its end."""
        for block in reversed(blocks):
            self._references[block] -= 1
            assert self._references[block] >= 0
            if self._references[block]:
                continue
            if self._digests[block] is None:
                self._blank.append(block)
            else:
                self._cached[block] = None

    def check(self, held: Sequence[Sequence[int]]) -> None:
        """Raises AssertionError unless the pool agrees with the block lists of all living sequences."""
        counts = [0] * self.num_blocks
        for blocks in held:
            for block in blocks:
                counts[block] += 1
        assert counts == self._references, "reference counts differ from the sequences' block lists"
        idle = set(self._blank) | set(self._cached)
        assert len(self._blank) + len(self._cached) == len(idle), "a block is idle twice"
        assert idle == {block for block, count in enumerate(counts) if count == 0}, "idle blocks are not those unheld"
        assert all(self._digests[block] == digest for digest, block in self._by_digest.items())
        assert all(self._digests[block] is None for block in self._blank)
        assert sum(digest is not None for digest in self._digests) == len(self._by_digest)
