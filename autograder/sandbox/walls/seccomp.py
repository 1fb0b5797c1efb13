"""Filter system calls: calls on an allowlist succeed, and all others fail with EPERM.

System calls for a different architecture kill the process, because ordinary programs make no such calls. The allowlist was
determined by running training loops, threads, checkpointing, the profiler and `torch.compile(backend="aot_eager")`. It
excludes fork, exec and socket. Entry points: `worker_program`, `refusing_program` and `install`.
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
read write readv writev pread64 pwrite64 open openat close close_range lseek fsync fdatasync ftruncate fallocate
fstat newfstatat stat lstat statx access faccessat faccessat2 readlink readlinkat getdents64
getcwd chdir fchdir umask unlink unlinkat rename renameat renameat2 mkdir mkdirat rmdir sendfile copy_file_range
dup dup2 dup3 pipe pipe2 poll ppoll select pselect6 epoll_create1 epoll_ctl epoll_wait epoll_pwait eventfd2
mmap mprotect munmap mremap madvise brk msync futex rseq sched_yield getcpu
gettid getpid getppid getuid geteuid getgid getegid getgroups getresuid getresgid getpgrp
rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack restart_syscall
alarm setitimer getitimer pause nanosleep gettimeofday time times
getrusage getrlimit uname getrandom exit exit_group wait4 waitid shutdown getsockname
"""
# Calls that could show what other processes do: clocks with a negative number belong to a process or a device, and other calls
# take a process id.
CLOCKS = "clock_gettime clock_getres clock_nanosleep"
OF_A_PROCESS = "sched_getaffinity sched_getparam sched_getscheduler getpgid getsid"
_NEGATIVE = 0x80000000
# These calls do nothing and report success. The first would evict pages that other processes use, and the second would wake
# processes outside when a thread ends. For one process alone, neither makes a difference.
PRETENDED = "fadvise64 set_robust_list"
# These calls change metadata, which Landlock does not restrict. They are allowed only if outside files are mounted
# read-only. Otherwise, they do nothing and report success, because `shutil.copy` ends with such a call.
METADATA = "chmod fchmod fchmodat fchmodat2 utimensat"
# Files in a folder on disk must keep their names, because unnamed files escape the size check in `private_folders`.
# Removing a file does nothing and reports success. Moving a file or creating an unnamed one fails.
REMOVING = "unlink unlinkat rmdir"
MOVING = "rename renameat renameat2"
# Landlock does not restrict reading links, whose targets any process outside can choose.
LINKS = "readlink readlinkat"
_TMPFILE = 0x400000
# The fork server and its processes do not need these calls.
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
# The fcntl commands for duplication and flags, but not those for owners, signals and leases.
_FCNTL = (0, 1, 2, 3, 4, 1030)
# F_SETLK and F_SETLKW. A process's record locks conflict only with those of other processes, so pretending is enough.
_LOCKS = (6, 7)
# A futex in a library's file is shared with every process that maps the file. For threads of one process, glibc uses the private
# operations, except that `pthread_join` waits with FUTEX_WAIT or FUTEX_WAIT_BITSET, and retries after EAGAIN.
_FUTEX_WAITS = (0, 9)
_FUTEX_PRIVATE = range(0x80, 0x90)
# Advice that affects only this process: not MADV_PAGEOUT and MADV_COLD, which affect files, nor MADV_MERGEABLE.
_MADVISE = (*range(5), 8, 10, 11, *range(14, 20), 102, 103)
_HUGE_PAGES = 0x40000  # MAP_HUGETLB takes pages from a pool that all processes share
# SO_TYPE, SO_ERROR, SO_PROTOCOL and SO_DOMAIN, but not SO_COOKIE, which counts the machine's sockets.
_SOCKET_OPTIONS = (3, 4, 38, 39)
# Real-time signals (from number 32) count towards a limit on all of a user's signals.
_REAL_TIME_SIGNALS = 0xFFFFFFE0
# The ioctl requests TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX and FIOCLEX.
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
# PR_SET_NAME, PR_GET_NAME and PR_SET_VMA, for the names of threads and memory mappings.
_PRCTL = (15, 16, 0x53564D41)
_OUT_OF_BAND = 1


@dataclass(frozen=True)
class Check:
    """A condition on an argument of a system call.

    The masked low half of the argument must be one of `values`. If `wide` is set, the high half must be zero. Otherwise, the
    call returns `error`, or pretends to succeed if that is 0.
    """

    argument: int
    values: Sequence[int]
    mask: int = 0xFFFFFFFF
    wide: bool = False
    error: int = errno.EPERM


# Further conditions for files in a folder on disk. With a mode other than 0, `fallocate` can reserve space beyond the end of
# a file, where RLIMIT_FSIZE does not apply.
ON_DISK = {
    "open": [Check(1, [0], _TMPFILE)],
    "openat": [Check(2, [0], _TMPFILE)],
    "fallocate": [Check(1, [0])],
}


def checks(pid: int) -> dict[str, list[Check]]:
    """Return the conditions on the arguments of system calls made by process `pid`, keyed by system call."""
    return {
        "clone": [Check(0, [_CLONE_THREAD], _CLONE_THREAD | NEW_NAMESPACES)],
        "fcntl": [Check(1, [*_FCNTL, *_LOCKS]), Check(1, _FCNTL, error=0)],
        "futex": [
            Check(1, [*_FUTEX_WAITS, *_FUTEX_PRIVATE], 0xFF, error=0),
            Check(1, _FUTEX_PRIVATE, 0xFF, error=errno.EAGAIN),
        ],
        "mmap": [Check(3, [0], _HUGE_PAGES)],
        "madvise": [Check(2, _MADVISE)],
        **{name: [Check(0, [0], _NEGATIVE)] for name in CLOCKS.split()},
        **{name: [Check(0, [0, pid])] for name in OF_A_PROCESS.split()},
        "getpriority": [Check(0, [0]), Check(1, [0, pid])],
        "ioctl": [Check(1, _IOCTL)],
        "prctl": [Check(0, _PRCTL)],
        "prlimit64": [Check(0, [0]), Check(2, [0], wide=True)],
        "tgkill": [Check(0, [pid]), Check(2, [0], _REAL_TIME_SIGNALS)],
        # Allow only stream sockets, because a datagram socket can send to any address.
        "socketpair": [Check(0, [1]), Check(1, [1], 0xF)],
        "sendto": [Check(3, [0], _OUT_OF_BAND)],
        "recvfrom": [Check(3, [0], _OUT_OF_BAND)],
        "getsockopt": [Check(1, [1]), Check(2, _SOCKET_OPTIONS)],
    }


def worker_program(pid: int, own_files: bool) -> bytes:
    """Return the filter for a worker. Set `own_files` if the worker can write only to its own file system."""
    # A filter cannot inspect the arguments of clone3. If clone3 fails with ENOSYS, glibc falls back to clone.
    code = _if_call("clone3", _return_errno(errno.ENOSYS))
    checked = checks(pid)
    if not own_files:
        checked |= ON_DISK
    for name, wanted in checked.items():
        code += _if_call(
            name, [i for check in wanted for i in _require(check)] + [_instruction(_RETURN, _ALLOW)]
        )
    names = set(ALLOWED.split()) - set(checked)
    pretended = PRETENDED.split()
    if own_files:
        names |= {*METADATA.split(), "truncate"}
    else:
        names -= {*REMOVING.split(), *MOVING.split(), *LINKS.split()}
        pretended += [*METADATA.split(), *REMOVING.split()]
    for name in pretended:
        code += _if_call(name, _return_errno(0))
    return _filter(code, names, _ALLOW, _ERRNO | errno.EPERM)


def refusing_program(names: Iterable[str]) -> bytes:
    """Return a filter that rejects the named system calls.

    If `unshare` is among them, clone cannot create namespaces either.
    """
    code = _if_call("clone3", _return_errno(errno.ENOSYS))
    if "unshare" in names:
        check = Check(0, [0], NEW_NAMESPACES)
        code += _if_call("clone", [*_require(check), _instruction(_RETURN, _ALLOW)])
    return _filter(code, names, _ERRNO | errno.EPERM, _ALLOW)


def install(program: bytes) -> None:
    """Permanently apply a system call filter to this thread and its children. Requires `no_new_privileges` or root."""
    buffer = ctypes.create_string_buffer(program, len(program))
    length = len(program) // _INSTRUCTION.size
    header = struct.pack("@HP", length, ctypes.addressof(buffer))
    syscalls.libc("prctl", 22, 2, header, 0, 0)


def _filter(code: list[bytes], names: Iterable[str], listed: int, otherwise: int) -> bytes:
    architecture = _ARCHITECTURES.get(platform.machine())
    if architecture is None:
        raise OSError(
            f"seccomp is not supported on {platform.machine()}: its system call numbers are unknown"
        )
    start = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_EQUAL, architecture, 1, 0),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER),
    ]
    if platform.machine() == "x86_64":
        start += [_instruction(_AT_LEAST, _X32, 0, 1), _instruction(_RETURN, _KILL)]
    numbers = sorted({n for n in map(syscalls.number, names) if n is not None})
    jumps = [_instruction(_EQUAL, n, len(numbers) - i, 0) for i, n in enumerate(numbers)]
    return b"".join(
        [*start, *code, *jumps, _instruction(_RETURN, otherwise), _instruction(_RETURN, listed)]
    )


def _if_call(name: str, block: list[bytes]) -> list[bytes]:
    which = syscalls.number(name)
    return [] if which is None else [_instruction(_EQUAL, which, 0, len(block)), *block]


def _require(check: Check) -> list[bytes]:
    """Return filter instructions that end a system call with the check's error unless the check passes."""
    at = _ARGUMENTS + 8 * check.argument
    code = (
        [_instruction(_LOAD, at + 4), _instruction(_EQUAL, 0, 1, 0), *_return_errno(check.error)]
        if check.wide
        else []
    )
    code.append(_instruction(_LOAD, at))
    if check.mask != 0xFFFFFFFF:
        code.append(_instruction(_AND, check.mask))
    values = check.values
    code += [_instruction(_EQUAL, value, len(values) - i, 0) for i, value in enumerate(values)]
    return [*code, *_return_errno(check.error)]


def _return_errno(error: int) -> list[bytes]:
    return [_instruction(_RETURN, _ERRNO | error)]


def _instruction(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, yes, no, value)
