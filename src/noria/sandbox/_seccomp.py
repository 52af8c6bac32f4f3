"""What the kernel refuses to the code inside: a seccomp filter, as the bytes that `bwrap --seccomp` reads.

Two kinds of calls are refused. Those that hold memory which no process is charged for, so that a limit on the processes' memory
would not hold: memory files, System V shared memory and queues, shared anonymous mappings, pages kept by a pipe. And those that
graders never need and the kernel's faults are found in: namespaces, mounts, tracing, keys, bpf, io_uring, odd socket families.
Source: https://docs.kernel.org/userspace-api/seccomp_filter.html, and the system call tables of Linux.
"""

from __future__ import annotations

import errno
import platform
import struct
from dataclasses import dataclass

__all__ = ["filter_program"]

_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _AND, _RETURN, _EQUAL, _AT_LEAST = 0x20, 0x54, 0x06, 0x15, 0x35
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16
_X32 = 0x40000000
"""Numbers from here on are x86-64's second table, of 32-bit pointers."""
_SHARED_ANONYMOUS, _HUGE = 0x21, 0x40000
_NAMESPACES = 0x7E020000
"""The flags of `clone` that make a namespace; in one of its own a user could mount memory without a limit."""
_FAMILIES = (1, 2, 10)
"""Unix, IPv4 and IPv6 sockets; without a network they reach nobody."""

# x86-64, then aarch64.
_REFUSED: dict[str, tuple[int, int]] = {
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "vmsplice": (278, 75),
    "remap_file_pages": (216, 234),
    "io_setup": (206, 0),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "userfaultfd": (323, 282),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "acct": (163, 89),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "personality": (135, 92),
    "syslog": (103, 116),
}


@dataclass(frozen=True, slots=True)
class _Machine:
    column: int
    audit: int
    mmap: int
    clone: int
    socket: int


_CLONE3 = 435
_MACHINES = {
    "x86_64": _Machine(0, 0xC000003E, mmap=9, clone=56, socket=41),
    "aarch64": _Machine(1, 0xC00000B7, mmap=222, clone=220, socket=198),
}


def filter_program(machine: str | None = None) -> bytes | None:
    """The filter for `machine` (default: this one); None where its calls' numbers are not known."""
    wanted = _MACHINES.get(machine or platform.machine())
    if wanted is None:
        return None
    steps = [_step(_LOAD, _ARCH_AT), _step(_EQUAL, wanted.audit, 1, 0), _step(_RETURN, _KILL), _step(_LOAD, _NUMBER_AT)]
    if wanted.column == 0:
        steps += [_step(_AT_LEAST, _X32, 0, 1), _refuse(errno.ENOSYS)]
    for numbers in _REFUSED.values():
        steps += [_step(_EQUAL, numbers[wanted.column], 0, 1), _refuse(errno.EPERM)]
    # Its flags lie in memory, out of a filter's sight: told that there is none, the C library takes `clone`.
    steps += [_step(_EQUAL, _CLONE3, 0, 1), _refuse(errno.ENOSYS)]
    steps += _when(wanted.clone, [_argument(0), _step(_AND, _NAMESPACES), _step(_EQUAL, 0, 1, 0), _refuse(errno.EPERM)])
    steps += _when(
        wanted.mmap,
        [
            _argument(3),
            _step(_AND, _SHARED_ANONYMOUS),
            _step(_EQUAL, _SHARED_ANONYMOUS, 3, 0),
            _argument(3),
            _step(_AND, _HUGE),
            _step(_EQUAL, 0, 1, 0),
            _refuse(errno.EPERM),
        ],
    )
    families = [_step(_EQUAL, family, len(_FAMILIES) - index, 0) for index, family in enumerate(_FAMILIES)]
    steps += _when(wanted.socket, [_argument(0), *families, _refuse(errno.EAFNOSUPPORT)])
    return b"".join([*steps, _step(_RETURN, _ALLOW)])


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One instruction of classic BPF; its jumps count the instructions that are passed over."""
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _refuse(why: int) -> bytes:
    return _step(_RETURN, _ERRNO | why)


def _argument(index: int) -> bytes:
    """Loads an argument's lower half, which is all the kernel looks at in those asked for here."""
    return _step(_LOAD, _ARGUMENTS_AT + 8 * index)


def _when(number: int, steps: list[bytes]) -> list[bytes]:
    """`steps` for one call; behind them it is allowed."""
    return [_step(_EQUAL, number, 0, len(steps) + 1), *steps, _step(_RETURN, _ALLOW)]
