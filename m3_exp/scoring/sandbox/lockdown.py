"""What a box gives up before it reads foreign code, for good: Linux's own means, through ctypes.

Landlock    files: only the standard library can be read, nothing can be written; no TCP, no signals to others
seccomp     system calls: only those a computation needs; no processes, sockets, signals, ptrace, chmod, mounts
rlimits     CPU seconds, address space, no file growth, few descriptors, no core

Boxes without walls (`sandbox.allow_weak`) have the rlimits alone, on any Unix.

Kernel interfaces: Documentation/userspace-api/{landlock,seccomp_filter}.rst.
"""

import contextlib
import ctypes
import os
import resource
import signal
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Literal

Walls = Literal["namespaces", "landlock", "none"]  # what hides the files: namespaces around the box, Landlock, nothing

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 36, 38


class LockdownError(Exception):
    """This kernel or machine lacks one of the means; nothing foreign may run."""


def lock(*, cpu_seconds: int, memory: int, walls: Walls) -> None:
    """Give up everything but `cpu_seconds` whole seconds of CPU time and `memory` bytes of address space.

    Raises:
        LockdownError: one of the means is not available here.
    """
    die_with_parent()
    hide()
    if walls != "none":
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    for name, soft, hard in (
        ("RLIMIT_CPU", cpu_seconds, cpu_seconds + 1),  # SIGXCPU, then SIGKILL for those who ignore it
        ("RLIMIT_AS", memory, memory),
        ("RLIMIT_FSIZE", 0, 0),
        ("RLIMIT_NOFILE", 64, 64),
        ("RLIMIT_CORE", 0, 0),
    ):
        try:
            resource.setrlimit(getattr(resource, name), (soft, hard))
        except (ValueError, OSError):
            if walls != "none":  # macOS has no limit on address space: there, weak is weaker still
                raise
    if walls == "landlock":
        _restrict_files(sorted(_readable()))
    if walls != "none":
        _filter_calls()


def die_with_parent() -> None:
    """Make the kernel kill this process when the one that started it ends; other systems than Linux cannot."""
    if sys.platform.startswith("linux"):
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def hide() -> None:
    """Keep this process, its descriptors and its environment from others of the same user (Linux only)."""
    if sys.platform.startswith("linux"):
        _prctl(_PR_SET_DUMPABLE, 0)


def adopt_orphans() -> None:
    """Become the parent of whatever a descendant leaves behind, so that `end_children` finds it (Linux only)."""
    if sys.platform.startswith("linux"):
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_children(seconds: float = 5.0) -> None:
    """Kill the children of this process and what they leave behind, until there is none or the time is over."""
    deadline = time.monotonic() + seconds
    while (children := _children()) and time.monotonic() < deadline:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        raise LockdownError(f"prctl({option}) failed: {os.strerror(ctypes.get_errno())}")


# ---------------------------------------------------------------------------------------------------------- Landlock

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3


def _readable() -> Iterator[tuple[str, int]]:
    """Give the paths that may be read: the standard library, without the packages installed inside its folder."""
    library = os.path.dirname(os.__file__)
    yield library, _READ_DIR
    for entry in os.scandir(library):
        if entry.name not in ("site-packages", "dist-packages"):
            yield entry.path, _READ_FILE | (_READ_DIR if entry.is_dir() else 0)


def landlock_version() -> int:
    """Return Landlock's ABI version; 0 where the kernel has none or has it switched off."""
    return max(0, int(_LIBC.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(1))))


def _restrict_files(readable: Sequence[tuple[str, int]]) -> None:
    version = landlock_version()
    if version < 1:
        raise LockdownError("this kernel has no Landlock (Linux 5.13 and later have, unless it is switched off)")
    rights = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    attributes = struct.pack("=QQQ", rights, 0b11, 0b11)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = _LIBC.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    if ruleset < 0:
        raise LockdownError(f"Landlock refuses a rule set: {os.strerror(ctypes.get_errno())}")
    for path, access in readable:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", access, descriptor)
        if _LIBC.syscall(_ADD_RULE, ruleset, 1, rule, ctypes.c_uint(0)) != 0:
            raise LockdownError(f"Landlock refuses a rule for {path}: {os.strerror(ctypes.get_errno())}")
        os.close(descriptor)
    if _LIBC.syscall(_RESTRICT_SELF, ruleset, ctypes.c_uint(0)) != 0:
        raise LockdownError(f"Landlock cannot be applied: {os.strerror(ctypes.get_errno())}")
    os.close(ruleset)


# ----------------------------------------------------------------------------------------------------------- seccomp

# What a computation in Python needs: name: (number on x86_64, on aarch64); None where there is no such call.
_ALLOWED: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63), "write": (1, 64), "futex": (202, 98), "mmap": (9, 222), "munmap": (11, 215), "brk": (12, 214),
    "mprotect": (10, 226), "mremap": (25, 216), "madvise": (28, 233), "close": (3, 57), "fstat": (5, 80),
    "newfstatat": (262, 79), "stat": (4, None), "lstat": (6, None), "statx": (332, 291), "lseek": (8, 62),
    "openat": (257, 56), "open": (2, None), "getdents64": (217, 61), "readlink": (89, None), "readlinkat": (267, 78),
    "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439), "getcwd": (79, 17), "pread64": (17, 67),
    "readv": (19, 65), "writev": (20, 66), "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24), "pipe2": (293, 59),
    "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132),
    "alarm": (37, None), "setitimer": (38, 103), "getitimer": (36, 102), "restart_syscall": (219, 128),
    "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "gettimeofday": (96, 169), "time": (201, None), "times": (100, 153), "getrusage": (98, 165),
    "getrlimit": (97, 163), "sysinfo": (99, 179), "uname": (63, 160), "getrandom": (318, 278),
    "getpid": (39, 172), "gettid": (186, 178), "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175),
    "getgid": (104, 176), "getegid": (108, 177), "sched_yield": (24, 124), "sched_getaffinity": (204, 123),
    "membarrier": (324, 283), "rseq": (334, 293), "set_robust_list": (273, 99), "set_tid_address": (218, 96),
    "arch_prctl": (158, None), "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip
_CLONE, _PRLIMIT, _FCNTL, _IOCTL = (56, 220), (302, 261), (72, 25), (16, 29)
_CLONE_THREAD = 0x10000
_DESCRIPTOR_COMMANDS = (0, 1, 2, 3, 4, 1030)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

_LOAD, _JUMP_EQUAL, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_ENOSYS, _ENOTTY, _EPERM = 38, 25, 1

_Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant


def _filter_calls() -> None:
    machine = os.uname().machine
    if machine not in _MACHINES:
        raise LockdownError(f"the table of system calls knows {', '.join(_MACHINES)}, not {machine}")
    program = b"".join(struct.pack("=HBBI", *instruction) for instruction in _program(*_MACHINES[machine]))
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    if _LIBC.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(2), header, ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        raise LockdownError(f"seccomp cannot be applied: {os.strerror(ctypes.get_errno())}")


def _program(column: int, architecture: int) -> list[_Instruction]:
    """Return the filter: another architecture kills; a call not named here answers ENOSYS, as an older kernel would."""
    program = [(_LOAD, 0, 0, 4), (_JUMP_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    for numbers in _ALLOWED.values():
        if numbers[column] is not None:
            program += [(_JUMP_EQUAL, 0, 1, numbers[column] or 0), (_RETURN, 0, 0, _ALLOW)]
    program += _when(_CLONE[column], [(_LOAD, 0, 0, _argument(0)), (_JUMP_BITS, 0, 1, _CLONE_THREAD)], _EPERM)
    program += _when(
        _PRLIMIT[column],
        [
            (_LOAD, 0, 0, _argument(2)), (_JUMP_EQUAL, 0, 3, 0),
            (_LOAD, 0, 0, _argument(2) + 4), (_JUMP_EQUAL, 0, 1, 0),
        ],
        _EPERM,
    )  # fmt: skip
    last = len(_DESCRIPTOR_COMMANDS) - 1
    commands = [(_JUMP_EQUAL, last - i, int(i == last), value) for i, value in enumerate(_DESCRIPTOR_COMMANDS)]
    program += _when(_FCNTL[column], [(_LOAD, 0, 0, _argument(1)), *commands], _EPERM)
    program += [(_JUMP_EQUAL, 0, 1, _IOCTL[column]), (_RETURN, 0, 0, _ERRNO | _ENOTTY)]
    return [*program, (_RETURN, 0, 0, _ERRNO | _ENOSYS)]


def _argument(index: int) -> int:
    """Return the offset of the low half of a system call's argument in `struct seccomp_data`."""
    return 16 + 8 * index


def _when(number: int, condition: Sequence[_Instruction], error: int) -> list[_Instruction]:
    """Allow one call under a condition that falls through when it holds and skips one instruction when it does not."""
    body = [*condition, (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | error)]
    return [(_JUMP_EQUAL, 0, len(body), number), *body]
