"""System calls that a process may make; all others answer EPERM.

Another architecture's calls kill, as no honest program makes them. The list was found by running training, threads,
checkpointing, the profiler and `torch.compile(backend="aot_eager")`; there is no fork, no exec and no socket in it.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autograder.sandbox.walls import syscalls

ALLOWED = """
read write readv writev pread64 pwrite64 open openat close close_range lseek fsync fdatasync ftruncate fallocate fadvise64
fstat newfstatat stat lstat statx statfs fstatfs access faccessat faccessat2 readlink readlinkat getdents64
getcwd chdir fchdir umask unlink unlinkat rename renameat renameat2 mkdir mkdirat rmdir sendfile copy_file_range
dup dup2 dup3 pipe pipe2 poll ppoll select pselect6 epoll_create1 epoll_ctl epoll_wait epoll_pwait eventfd2
mmap mprotect munmap mremap madvise brk mincore msync
futex futex_waitv set_robust_list get_robust_list rseq set_tid_address sched_yield sched_getaffinity sched_getparam
sched_getscheduler getpriority getcpu
gettid getpid getppid getuid geteuid getgid getegid getgroups getresuid getresgid getpgrp getpgid getsid
rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack restart_syscall
alarm setitimer getitimer pause clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times
getrusage getrlimit sysinfo uname getrandom exit exit_group wait4 waitid shutdown getsockopt getsockname
"""
# Change what belongs to a file, which Landlock does not govern: only where all files but its own are read-only mounts.
# Elsewhere nothing happens and the call says that all is well: `shutil.copy` ends with one.
METADATA = "chmod fchmod fchmodat fchmodat2 utimensat"
# In a folder on a disk nothing may lose its name, as what has none is not seen by those who watch how much there is. Removing
# does nothing and says that all is well; nothing is moved, and no file begins without a name.
REMOVING = "unlink unlinkat rmdir"
MOVING = "rename renameat renameat2"
LASTING = {"open": 1, "openat": 2}  # calls with their argument that may hold O_TMPFILE
_TMPFILE = 0x400000
# What neither the fork server nor a process of its own ever needs.
NEVER = """
execve execveat ptrace process_vm_readv process_vm_writev bpf perf_event_open io_uring_setup io_uring_enter
io_uring_register userfaultfd keyctl add_key request_key memfd_create open_by_handle_at
"""

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000
_KILL, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_INSTRUCTION = struct.Struct("<HBBI")
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16

_CLONE_THREAD = 0x10000
NEW_NAMESPACES = 0x7E020080
_FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 1030)  # duplicate, flags, locks; no owners, signals or leases
_IOCTL = (
    0x5401,
    0x5413,
    0x541B,
    0x5421,
    0x5450,
    0x5451,
)  # TCGETS TIOCGWINSZ FIONREAD FIONBIO FIONCLEX FIOCLEX
_PRCTL = (15, 16, 0x53564D41)  # names of threads and of mappings
_OUT_OF_BAND = 1


@dataclass(frozen=True)
class Check:
    """The low half of an argument, masked, is one of some values; the high half is zero if `wide`."""

    argument: int
    values: Sequence[int]
    mask: int = 0xFFFFFFFF
    wide: bool = False


def checks(pid: int) -> dict[str, list[Check]]:
    """What is allowed with some arguments only, to the process `pid`."""
    return {
        "clone": [Check(0, [_CLONE_THREAD], _CLONE_THREAD | NEW_NAMESPACES)],
        "fcntl": [Check(1, _FCNTL)],
        "ioctl": [Check(1, _IOCTL)],
        "prctl": [Check(0, _PRCTL)],
        "prlimit64": [Check(0, [0]), Check(2, [0], wide=True)],
        "tgkill": [Check(0, [pid])],
        # A stream: through a datagram socket one could send to any address.
        "socketpair": [Check(0, [1]), Check(1, [1], 0xF)],
        "sendto": [Check(3, [0], _OUT_OF_BAND)],
        "sendmsg": [Check(2, [0], _OUT_OF_BAND)],
        "recvfrom": [Check(3, [0], _OUT_OF_BAND)],
    }


def worker_program(pid: int, own_files: bool) -> bytes:
    """The filter of an exercise's process; `own_files` if all that it can write lies in a file system of its own."""
    # glibc tries clone3 first, whose arguments can not be read here, and then takes clone.
    code = _when("clone3", _answer(errno.ENOSYS))
    checked = checks(pid)
    if not own_files:
        checked |= {name: [Check(at, [0], _TMPFILE)] for name, at in LASTING.items()}
    for name, wanted in checked.items():
        code += _when(
            name, [i for check in wanted for i in _unless(check)] + [_do(_RETURN, _ALLOW)]
        )
    names = set(ALLOWED.split()) - set(checked)
    if own_files:
        names |= {*METADATA.split(), "truncate"}
    else:
        names -= {*REMOVING.split(), *MOVING.split()}
        for name in (*METADATA.split(), *REMOVING.split()):
            code += _when(name, _answer(0))
    return _filter(code, names, _ALLOW, _ERRNO | errno.EPERM)


def refusing_program(names: Iterable[str]) -> bytes:
    """A filter that refuses these calls, and namespaces through clone, and allows all else."""
    code = _when("clone3", _answer(errno.ENOSYS))
    if "unshare" in names:
        check = Check(0, [0], NEW_NAMESPACES)
        code += _when("clone", [*_unless(check), _do(_RETURN, _ALLOW)])
    return _filter(code, names, _ERRNO | errno.EPERM, _ALLOW)


def install(program: bytes) -> None:
    """Filter this thread's calls, and those of all that it starts, for good; needs `no_new_privileges` or root."""
    buffer = ctypes.create_string_buffer(program, len(program))
    length = len(program) // _INSTRUCTION.size
    header = struct.pack("@HP", length, ctypes.addressof(buffer))
    syscalls.library("prctl", 22, 2, header, 0, 0)


def _filter(code: list[bytes], names: Iterable[str], listed: int, otherwise: int) -> bytes:
    architecture = _ARCHITECTURES.get(platform.machine())
    if architecture is None:
        raise OSError(f"seccomp: no table of system calls for {platform.machine()}")
    start = [
        _do(_LOAD, _ARCHITECTURE),
        _do(_EQUAL, architecture, 1, 0),
        _do(_RETURN, _KILL),
        _do(_LOAD, _NUMBER),
    ]
    if platform.machine() == "x86_64":
        start += [_do(_AT_LEAST, _X32, 0, 1), _do(_RETURN, _KILL)]
    numbers = sorted({n for n in map(syscalls.number, names) if n is not None})
    jumps = [_do(_EQUAL, n, len(numbers) - i, 0) for i, n in enumerate(numbers)]
    return b"".join([*start, *code, *jumps, _do(_RETURN, otherwise), _do(_RETURN, listed)])


def _when(name: str, block: list[bytes]) -> list[bytes]:
    which = syscalls.number(name)
    return [] if which is None else [_do(_EQUAL, which, 0, len(block)), *block]


def _unless(check: Check) -> list[bytes]:
    """Go on if the check holds; EPERM otherwise."""
    at = _ARGUMENTS + 8 * check.argument
    code = [_do(_LOAD, at + 4), _do(_EQUAL, 0, 1, 0), *_answer(errno.EPERM)] if check.wide else []
    code.append(_do(_LOAD, at))
    if check.mask != 0xFFFFFFFF:
        code.append(_do(_AND, check.mask))
    values = check.values
    code += [_do(_EQUAL, value, len(values) - i, 0) for i, value in enumerate(values)]
    return [*code, *_answer(errno.EPERM)]


def _answer(code: int) -> list[bytes]:
    return [_do(_RETURN, _ERRNO | code)]


def _do(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, yes, no, value)
