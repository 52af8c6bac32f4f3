"""Code behind the walls: what it cannot reach, and how it ends when it takes too much."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from noria.errors import InvalidRequest, NotBuilt
from noria.sandbox import Limits, PythonSession, run_python
from noria.sandbox import _bubblewrap as walls  # pyright: ignore[reportPrivateUsage]
from noria.sandbox._seccomp import filter_program

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
TIGHT = Limits(wall_s=0.8, cpu_s=1, memory_mb=256, processes=8, output_kb=64, disk_mb=16)


async def test_a_program_runs_and_its_output_comes_back() -> None:
    done = await run_python("import sys; print(1 + 1); print('no', file=sys.stderr); sys.exit(3)")
    assert (done.stdout, done.stderr, done.exit_code, done.stopped) == ("2\n", "no\n", 3, None)


async def test_files_lie_in_its_working_folder() -> None:
    done = await run_python("print(open('data/a.txt').read())", {"data/a.txt": b"hello"})
    assert done.stdout == "hello\n"
    with pytest.raises(InvalidRequest, match="leads out"):
        await run_python("pass", {"../a": b""})


async def test_nothing_of_the_host_is_there(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    source = f"""
import os
for path in ("/etc/shadow", "/etc/passwd", {str(secret)!r}, {str(Path.home() / ".bashrc")!r}, "/proc/1/environ", "/sys"):
    try:
        os.listdir(path) if os.path.isdir(path) else open(path).read()
        print("reached", path)
    except OSError:
        pass
print(sorted(os.listdir("/tmp")), dict(os.environ).get("NORIA_SECRET"), os.getuid() != 0)
"""
    os.environ["NORIA_SECRET"] = "x"
    try:
        done = await run_python(source)
    finally:
        del os.environ["NORIA_SECRET"]
    # A Python that is installed below /tmp has its folder there, and nothing else.
    own = sorted({Path(prefix).parts[2] for prefix in (sys.prefix, sys.base_prefix) if prefix.startswith("/tmp/")})
    assert done.stdout == f"{own} None True\n", done


async def test_nothing_outside_its_folder_can_be_written() -> None:
    source = """
import sys
for path in ("/usr/x", "/x", "/dev/x", sys.prefix + "/x", sys.base_prefix + "/x"):
    try:
        open(path, "w")
        print("wrote", path)
    except OSError:
        pass
"""
    assert (await run_python(source)).stdout == ""


async def test_there_is_no_network() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        done = await run_python(f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)")
    assert done.exit_code == 1
    assert "Error" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "reasons"),
    [
        ("while True: pass", {"time"}),
        ("import os\nwhile True:\n  try: os.fork()\n  except OSError: pass", {"time", "processes"}),
        ("print('x' * 10**9)", {"output", None}),
        ("while True: print('x' * 1000)", {"output"}),
        ("x = []\nwhile True: x.append(bytearray(10**6))", {None, "memory", "time"}),
        (
            "import os, time\nfor i in range(6):\n  if os.fork() == 0:\n    b = bytearray(90 * 2**20)\n    time.sleep(9)\n"
            "time.sleep(9)",
            {"memory"},
        ),
        ("f = open('/tmp/x', 'wb')\nwhile True: f.write(bytes(10**6))", {None}),
        ("import os\nfor i in range(99): open(f'/dev/shm/{i}', 'wb').write(bytes(10**6))", {None}),
    ],
)
async def test_what_takes_too_much_is_ended(source: str, reasons: set[str | None]) -> None:
    begun = time.monotonic()
    done = await run_python(source, limits=TIGHT)
    assert time.monotonic() - begun < 6
    assert done.stopped in reasons, done
    assert done.exit_code != 0
    assert len(done.stdout) <= 64 * 1024
    assert not await _sandboxes()


async def test_an_endless_loop_and_endless_output_are_ended() -> None:
    looping, printing = await asyncio.gather(
        run_python("while True: pass", limits=TIGHT), run_python("while True: print('x' * 1000)", limits=TIGHT)
    )
    assert (looping.stopped, printing.stopped) == ("time", "output")


@pytest.mark.parametrize(
    "grab",
    [
        "import os\n  fd = os.memfd_create('x')\n  os.write(fd, bytes(8 * 2**20))",
        "import mmap\n  mmap.mmap(-1, 8 * 2**20).write(bytes(8 * 2**20))",
        "import mmap, os\n  mmap.mmap(os.open('/dev/zero', os.O_RDWR), 8 * 2**20)",
        "import ctypes\n  libc = ctypes.CDLL(None, use_errno=True)\n  if libc.shmget(0, 8 * 2**20, 0o1600) < 0: raise OSError",
        "import ctypes\n  libc = ctypes.CDLL(None, use_errno=True)\n  if libc.unshare(0x10000000) < 0: raise OSError",
        "import socket\n  socket.socket(socket.AF_NETLINK)",
    ],
    ids=["memory file", "shared mapping", "mapped zeroes", "System V", "namespace", "socket family"],
)
async def test_memory_that_is_no_process_s_own_cannot_be_had(grab: str) -> None:
    done = await run_python(f"try:\n  {grab}\n  print('had it')\nexcept OSError:\n  print('refused')")
    assert done.stdout == "refused\n", done


async def test_what_the_kernel_holds_for_empty_files_counts_as_memory() -> None:
    source = "import os, time\nfor n in range(70_000): os.mknod(f'/tmp/{n}')\ntime.sleep(9)"
    done = await run_python(source, limits=Limits(wall_s=5, memory_mb=64))
    assert done.stopped == "memory", done


async def test_what_programs_commonly_do_is_not_refused() -> None:
    source = """
import asyncio, ctypes, mmap, multiprocessing, subprocess, tempfile, threading
def double(x): return 2 * x
async def say(): return await asyncio.to_thread(double, 4)
with tempfile.TemporaryFile() as file:
    file.truncate(4096)
    mmap.mmap(file.fileno(), 4096).write(b"x")
with multiprocessing.get_context("fork").Pool(2) as pool: print(pool.map(abs, [-2, 4]))
print(subprocess.run(["/bin/echo", "six"], capture_output=True, text=True).stdout.strip(), asyncio.run(say()))
"""
    done = await run_python(source)
    assert done.stdout == "[2, 4]\nsix 8\n", done


# For each machine: its name to the kernel, and the numbers of memfd_create, clone, mmap, socket and write.
@pytest.mark.parametrize(
    ("machine", "audit", "numbers"),
    [("x86_64", 0xC000003E, (319, 56, 9, 41, 1)), ("aarch64", 0xC00000B7, (279, 220, 222, 198, 64))],
)
def test_what_the_filter_says_of_calls(machine: str, audit: int, numbers: tuple[int, ...]) -> None:
    def said(number: int, *arguments: int, of: int = audit) -> int:
        program = filter_program(machine)
        assert program is not None
        return _filtered(program, struct.pack("=IIQ6Q", number, of, 0, *arguments, *[0] * (6 - len(arguments))))

    memfd, clone, mmap, socket_, write = numbers
    allowed, refused = 0x7FFF0000, 0x50000 | errno.EPERM
    assert said(write) == allowed
    assert said(write, of=0x40000003) == 0x80000000  # another machine's calls
    assert said(memfd) == refused
    assert said(435) == 0x50000 | errno.ENOSYS
    assert [said(clone, flags) for flags in (17, 0x3D0F00, 0x10000000 | 17)] == [allowed, allowed, refused]
    maps = {0x02: allowed, 0x22: allowed, 0x01: allowed, 0x21: refused, 0x23: refused, 0x40022: refused}
    assert {flags: said(mmap, 0, 4096, 3, flags) for flags in maps} == maps
    families = {1: allowed, 2: allowed, 10: allowed, 16: 0x50000 | errno.EAFNOSUPPORT, 38: 0x50000 | errno.EAFNOSUPPORT}
    assert {family: said(socket_, family) for family in families} == families


def _filtered(program: bytes, call: bytes) -> int:
    """What the kernel would make of a call: the few instructions that the filter has, one after another."""
    steps, place, held = list(struct.iter_unpack("=HBBI", program)), 0, 0
    while True:
        code, if_true, if_false, value = steps[place]
        place += 1
        match code:
            case 0x20:
                held = int.from_bytes(call[value : value + 4], "little")
            case 0x54:
                held &= value
            case 0x15 | 0x35:
                place += if_true if (held == value if code == 0x15 else held >= value) else if_false
            case _:
                assert code == 0x06
                return value


def test_a_machine_whose_calls_are_not_known_runs_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walls, "filter_program", lambda: None)
    with pytest.raises(NotBuilt, match="not known"):
        walls.require_sandbox()


async def test_libraries_of_this_python_can_be_imported() -> None:
    assert (await run_python("import numpy; print(numpy.arange(4).sum())")).stdout == "6\n"


async def test_a_session_survives_calls_that_do_not() -> None:
    source = """
count = 0
def grade(word, item):
    global count
    count += 1
    print("chatter")
    while word == "loop": pass
    if word == "die":
        import os; os._exit(1)
    if word == "grow":
        x = []
        while True: x.append(bytearray(10**6))
    if word == "none": return None
    if word == "nan": return float("nan")
    return count * len(word)
"""
    async with PythonSession(source, "grade", TIGHT) as session:
        outcomes = {word: await session.call(word, {}) for word in ("ab", "loop", "abc", "die", "grow", "none", "nan", "abcd")}
    assert [outcomes[word].value for word in ("ab", "abc", "abcd")] == [2.0, 3.0, 4.0]  # the namespace is fresh each time
    assert outcomes["loop"].stopped == "time"
    assert outcomes["die"].stopped == "ended"
    assert "MemoryError" in (outcomes["grow"].error or "") or outcomes["grow"].stopped == "memory"
    assert "TypeError" in (outcomes["none"].error or "")
    assert "finite" in (outcomes["nan"].error or "")
    assert not await _sandboxes()


@pytest.mark.slow
async def test_a_source_that_is_stopped_again_and_again_is_given_up() -> None:
    async with PythonSession("import os\ndef grade(a, b): os._exit(0)", "grade", TIGHT) as session:
        errors = [await session.call(1, 2) for _ in range(22)]
    assert "not run any more" in (errors[-1].error or "")


async def test_a_cancelled_call_leaves_no_answer_for_the_next() -> None:
    async with PythonSession("import time\ndef grade(a, b):\n  time.sleep(a)\n  return a", "grade", TIGHT) as session:
        task = asyncio.ensure_future(session.call(0.5, 0))
        await asyncio.sleep(0.3)
        task.cancel()
        assert (await session.call(0.01, 0)).value == 0.01


@pytest.mark.parametrize(
    "leave",
    ["if os.fork() == 0:\n  while True: pass", "threading.Thread(target=loop, daemon=True).start()"],
    ids=["a process", "a thread"],
)
async def test_nothing_works_on_after_its_call_has_been_answered(leave: str) -> None:
    body = leave.replace("\n", "\n  ")
    source = f"import os, threading\ndef loop():\n  while True: pass\ndef grade(a, b):\n  {body}\n  return a"
    async with PythonSession(source, "grade", replace(TIGHT, cpu_s=5, wall_s=5)) as session:
        assert (await session.call(1, 0)).value == 1
        for _ in range(40):
            await asyncio.sleep(0.05)
            if not await _listed():
                break
        assert not await _sandboxes()
        assert (await session.call(2, 0)).value == 2  # and the next call is none the worse for it


async def test_a_call_s_processor_time_is_counted_over_all_its_processes() -> None:
    source = """
import ctypes, os
def grade(a, b):
    ctypes.CDLL(None).prctl(15, b"\\xff) 1 (")  # a name that is no text
    for i in range(2): os.fork()
    while True: pass
"""
    async with PythonSession(source, "grade", replace(TIGHT, wall_s=20)) as session:
        begun = time.monotonic()
        assert (await session.call(1, 0)).stopped == "time"
    assert time.monotonic() - begun < 10


async def test_a_large_row_passes() -> None:
    async with PythonSession("def grade(a, b): return len(a['text'])", "grade") as session:
        assert (await session.call({"text": "名" * 700_000}, {})).value == 700_000


async def test_a_second_start_is_quick() -> None:
    await run_python("pass")
    times = [(await run_python("pass")).duration_s for _ in range(5)]
    assert min(times) < 0.15, times


async def test_without_bubblewrap_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walls.shutil, "which", lambda _: None)
    with pytest.raises(NotBuilt, match="apt install bubblewrap"):
        await run_python("pass")


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become somebody else")
def test_it_works_for_a_user_who_is_not_root() -> None:
    """With the system's Python, whose folders everyone may read."""
    python = shutil.which("python3", path="/usr/bin")
    if python is None:
        pytest.skip("there is no system Python")
    probe = """
import json, os, subprocess, sys
from noria.sandbox import Limits, _bubblewrap as walls
from noria.sandbox._process import _PROGRAM
sys.executable, sys.prefix, sys.base_prefix = sys.argv[1], "/usr", "/usr"
os.environ["HOME"] = "/nonexistent"
os.chdir("/")
os.setgroups([]); os.setgid(65534); os.setuid(65534)
head = {"uids": [], "path": [], "files": {}, "mode": "run", "limits": {"NPROC": 8}, "source": "import os; print(os.listdir('/'))"}
with walls.open_filter() as fd:
    command = walls.command(Limits(), _PROGRAM, fd)
    done = subprocess.run(command, input=json.dumps(head).encode() + b"\\n", capture_output=True, pass_fds=[fd])
print(done.stdout.decode(), done.stderr.decode())
"""
    done = subprocess.run([sys.executable, "-c", probe, python], capture_output=True, text=True, check=False, timeout=30)
    assert "'usr'" in done.stdout, done
    assert "'home'" not in done.stdout


async def _sandboxes() -> list[str]:
    """Live bubblewrap processes that this test process started, after a second at most."""
    alive = await _listed()
    for _ in range(20):
        if alive:
            await asyncio.sleep(0.05)
            alive = await _listed()
    return alive


async def _listed() -> list[str]:
    command = ["ps", "-o", "stat=,args=", "--ppid", str(os.getpid())]
    listed = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    return [line for line in listed.stdout.splitlines() if "bwrap" in line and not line.startswith("Z")]
