"""The block pool keeps its invariants under any history."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.engines.openvino._blocks import BlockPool, chain_digest


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["take", "publish", "share", "release"]), st.integers(0, 7)), max_size=60))
def test_any_history_keeps_the_books_straight(history: list[tuple[str, int]]) -> None:
    pool = BlockPool(5)
    held: list[list[int]] = []
    for action, number in history:
        digest = chain_digest(b"", [number])
        if action == "take" and pool.num_free:
            held.append([pool.take()])
        elif action == "publish" and held:
            pool.publish(held[number % len(held)][0], digest)
        elif action == "share":
            block = pool.share(digest)
            if block is not None:
                held.append([block])
        elif action == "release" and held:
            pool.release(held.pop(number % len(held)))
        pool.check(held)
    assert pool.num_free == pool.num_blocks - len({block for blocks in held for block in blocks})


def test_a_released_block_is_found_again_until_it_is_reclaimed() -> None:
    pool = BlockPool(2)
    block, digest = pool.take(), chain_digest(b"", [1, 2])
    pool.publish(block, digest)
    pool.release([block])
    assert pool.share(digest) == block
    pool.release([block])
    pool.take()
    pool.take()
    assert pool.share(digest) is None


def test_the_salt_keeps_adapters_apart() -> None:
    assert chain_digest(b"", [1]) != chain_digest(b"adapter", [1])
    assert chain_digest(chain_digest(b"", [1]), [2]) != chain_digest(b"", [2])


def test_check_finds_a_leak() -> None:
    pool = BlockPool(2)
    pool.take()
    with pytest.raises(AssertionError):
        pool.check([])
