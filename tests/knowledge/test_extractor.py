"""No file crashes, hangs or eats the server: what goes wrong ends one child process and names the file."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from noria.errors import InvalidRequest, NoriaError, PayloadTooLarge, Unavailable
from noria.knowledge import ExtractorPool, Limits

from . import sample_files

_SAMPLE, _ALL = 20, 300
_MAX_CHILD_BYTES = 1_200_000_000


def child_pids() -> list[int]:
    return [child.pid for child in psutil.Process().children() if "_extractor_child" in " ".join(child.cmdline())]


async def test_every_format_comes_back_whole() -> None:
    async with ExtractorPool(size=2) as pool:
        documents = await asyncio.gather(*(pool.extract(data, filename=name) for name, data in sample_files.seeds().items()))
    assert [document.format for document in documents] == ["pdf", "docx", "html", "md", "csv", "txt"]
    assert child_pids() == []


async def test_a_path_is_read_by_the_child(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("水车")
    async with ExtractorPool() as pool:
        assert (await pool.extract(tmp_path / "a.txt", filename="a.txt")).text == "水车"
        with pytest.raises(InvalidRequest, match=r"gone\.txt"):
            await pool.extract(tmp_path / "gone.txt", filename="gone.txt")


async def test_processes_are_reused_and_then_renewed() -> None:
    async with ExtractorPool(size=1, files_per_process=3) as pool:
        seen: list[int] = []
        for _ in range(4):
            await pool.extract(b"text", filename="a.txt")
            seen += child_pids()
    assert len(set(seen)) <= 2
    assert len(seen) == 3  # renewed after the third file


async def test_a_child_that_hangs_is_ended_and_replaced() -> None:
    async with ExtractorPool(size=1, limits=Limits(base_time_s=1.0)) as pool:
        await pool.extract(b"text", filename="a.txt")
        os.kill(child_pids()[0], signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(InvalidRequest, match=r"slow\.txt.*longer than 1 s"):
            await pool.extract(b"text", filename="slow.txt")
        assert time.monotonic() - started < 5
        assert (await pool.extract(b"text", filename="a.txt")).text == "text"


async def test_a_child_that_dies_is_replaced() -> None:
    async with ExtractorPool(size=1) as pool:
        await pool.extract(b"text", filename="a.txt")
        os.kill(child_pids()[0], signal.SIGSEGV)
        with pytest.raises(InvalidRequest, match=r"bad\.txt.*SIGSEGV"):
            await pool.extract(b"text", filename="bad.txt")
        assert (await pool.extract(b"text", filename="a.txt")).text == "text"


async def test_memory_is_limited() -> None:
    greedy = b"<p>" * 3_000_000
    async with ExtractorPool(size=1, limits=Limits(max_memory_bytes=100_000_000)) as pool:
        with pytest.raises(InvalidRequest, match=r"greedy\.html") as caught:
            await pool.extract(greedy, filename="greedy.html")
        assert caught.value.code == "unreadable_file"
        assert (await pool.extract(b"text", filename="a.txt")).text == "text"


async def test_a_cancelled_call_does_not_mix_answers_up() -> None:
    async with ExtractorPool(size=1) as pool:
        await pool.extract(b"warm", filename="a.txt")
        call = asyncio.create_task(pool.extract(b"first " * 1_000_000, filename="a.txt"))
        await asyncio.sleep(0.02)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (await pool.extract(b"second", filename="a.txt")).text == "second"


async def test_limits_and_a_closed_pool_are_refused() -> None:
    async with ExtractorPool(limits=Limits(max_bytes=10, max_text_chars=5)) as pool:
        with pytest.raises(PayloadTooLarge, match=r"a\.txt"):
            await pool.extract(b"x" * 11, filename="a.txt")
        with pytest.raises(PayloadTooLarge, match=r"a\.txt"):
            await pool.extract(b"x" * 6, filename="a.txt")
    with pytest.raises(Unavailable):
        await pool.extract(b"x", filename="a.txt")


async def test_an_answer_longer_than_any_document_is_not_waited_for() -> None:
    async with ExtractorPool(size=1, limits=_Small()) as pool:
        await pool.extract(b"text", filename="a.txt")
        with pytest.raises(InvalidRequest, match=r"long\.txt.*longer than any document"):
            await pool.extract(b"word " * 1000, filename="long.txt")
        assert (await pool.extract(b"text", filename="a.txt")).text == "text"


class _Small(Limits):
    @property
    def max_wire_bytes(self) -> int:
        return 1000


async def _survive(num_mutations: int) -> None:
    seeds = sample_files.seeds()
    refusals = 0
    async with ExtractorPool(size=2) as pool:

        async def attempt(name: str, seed: int) -> int:
            started = time.monotonic()
            try:
                await pool.extract(sample_files.mutate(seeds[name], seed), filename=name)
            except NoriaError as error:
                assert name in error.message  # noqa: PT017
                return 1
            finally:
                assert time.monotonic() - started < 30 * num_mutations  # queueing included; a hang would be cut at 30 s
            return 0

        for name in seeds:
            for first in range(0, num_mutations, 10):
                refusals += sum(await asyncio.gather(*(attempt(name, seed) for seed in range(first, first + 10))))
                for pid in child_pids():
                    assert psutil.Process(pid).memory_info().rss < _MAX_CHILD_BYTES
    assert refusals > 0
    assert child_pids() == []


async def test_mutated_files_a_sample() -> None:
    await _survive(_SAMPLE)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_mutated_files_all() -> None:
    await _survive(_ALL)


@pytest.mark.slow
async def test_a_pdf_of_ten_thousand_pages() -> None:
    page = [(f"Line {line} of a page about wheels and water.", 10) for line in range(40)]
    data = sample_files.make_pdf([page] * 10_000)
    async with ExtractorPool() as pool:
        document = await pool.extract(data, filename="long.pdf")
        assert document.pages[-1].number == 10_000
        with pytest.raises(PayloadTooLarge, match="10,001 pages"):
            await pool.extract(sample_files.make_pdf([[("x", 10)]] * 10_001), filename="long.pdf")
