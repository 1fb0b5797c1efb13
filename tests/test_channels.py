"""Test that student code and a process outside the sandbox cannot exchange data, and that code that only seems to do so runs.

As a script, this file tries all channels as one user in one sandbox configuration and prints the results as JSON.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.as_user import become_nobody, deny_namespaces
from tests.test_walls import CASES, result, run_one, start

pytestmark = pytest.mark.slow

# Ways to exchange data with a process outside. Each function body returns a true value if it succeeds.

CHANNELS = {
    "see a record lock": """
        with open('/dev/null', 'r+') as file: lock = fcntl.fcntl(file, fcntl.F_GETLK, FREE)
        return lock != FREE
        """,
    "wait for a record lock": """
        try: fcntl.lockf(open('/dev/null', 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError: return True
        """,
    "see a lock of an open file": "return fcntl.fcntl(open('/dev/null', 'r+'), 36, FREE) != FREE",
    "wait for a lock of an open file": """
        try: fcntl.fcntl(open('/dev/null', 'r+'), 37, FREE)
        except BlockingIOError: return True
        """,
    "wait for a lock of a file": """
        try: fcntl.flock(open('/dev/null'), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError: return True
        """,
    "wake a thread": "return futex(1, 1) > 0",
    "wake a thread by a set of bits": "return futex(10, 1, 1) > 0",
    "wake a thread when another ends": "end_after(lambda: libc.syscall(218, ctypes.c_void_p(WORD)))",
    "wake a thread with a robust list": """
        head = (ctypes.c_long * 3)()
        head[0], head[2] = ctypes.addressof(head), WORD
        end_after(lambda: libc.syscall(273, head, 24))
        """,
    "wait for another process": "return futex(0, 0) < 0 and ctypes.get_errno() == 110",
    "wait for another process with a set of bits": """
        return futex(9 | 256, 0, 1) < 0 and ctypes.get_errno() == 110
        """,
    "wait for several processes": "return libc.syscall(449, None, 0, 0, None, 0) and ctypes.get_errno() == 22",
    "see which pages are in memory": "return libc.mincore(ctypes.c_void_p(WORD & -4096), 4096, bytearray_of(1)) == 0",
    "remove pages from memory": "return libc.madvise(ctypes.c_void_p(WORD & -4096), 4096, 21) == 0",
    "take a large page": "return libc.mmap(None, 1 << 21, 3, 0x40022, -1, 0) and ctypes.get_errno() != 1",
    "see the machine's load": "return libc.sysinfo(bytearray_of(200)) == 0",
    "see the free space on the disk": "return os.statvfs(os.__file__).f_blocks",
    "see another process's time": "import time; return time.clock_gettime(~T['process'] << 3 | 2) > 0",
    "sleep until another process has worked": """
        return libc.clock_nanosleep(~T['process'] << 3 | 2, 1, (ctypes.c_long * 2)(0, 1), None) == 0
        """,
    "see another process's CPUs": "return len(os.sched_getaffinity(T['process']))",
    "see another process's scheduler": "return os.sched_getscheduler(T['process']) >= 0",
    "see another process's scheduling parameters": "return bool(os.sched_getparam(T['process']))",
    "see another process's priority": "os.getpriority(os.PRIO_PROCESS, T['process']); return True",
    "see another user's priority": "os.getpriority(os.PRIO_USER, T['user']); return True",
    "see another process's group": "os.getpgid(T['process']); return True",
    "see another process's session": "os.getsid(T['process']); return True",
    "see another process's robust list": "return libc.syscall(274, T['process'], bytearray_of(8), bytearray_of(8)) == 0",
    "count the machine's sockets": "return len(socket.socketpair()[0].getsockopt(socket.SOL_SOCKET, 57, 8))",
    "send a descriptor": "pair = socket.socketpair(); return socket.send_fds(pair[0], [b'x'], [0])",
    "queue real-time signals": """
        signal.pthread_sigmask(signal.SIG_BLOCK, {40})
        return libc.tgkill(os.getpid(), threading.get_native_id(), 40) == 0
        """,
    "read a link": "return os.readlink(T['link'])",
    "watch a folder": "fcntl.fcntl(os.open('.', os.O_RDONLY), fcntl.F_NOTIFY, 2); return True",
    "take a lease": """
        open('leased', 'w').close()
        fcntl.fcntl(os.open('leased', os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_RDLCK)
        return True
        """,
}
WAKES = ("wake a thread when another ends", "wake a thread with a robust list")
# `WORD` is the address of an int in the page of a library's file. It is 0, because it is beyond the end of the file. Each script
# uses another one.
FUTEXES = """
import ctypes, fcntl, mmap, os, struct, threading
libc = ctypes.CDLL(None, use_errno=True)
FREE = struct.pack('hhqqi', fcntl.F_WRLCK, 0, 0, 1, 0)
libc.mmap.restype, libc.mmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, *[ctypes.c_long] * 5]
def word():
    pages, used = divmod(os.path.getsize(os.__file__), 4096)
    fd = os.open(os.__file__, os.O_RDONLY)
    at = libc.mmap(None, 4096, mmap.PROT_READ, mmap.MAP_PRIVATE, fd, 4096 * pages)
    at += 4092 - 4 * (T['process'] % ((4096 - used) // 4))
    os.close(fd)
    assert ctypes.c_int.from_address(at).value == 0
    return at
WORD = word()
def futex(operation, value, bits=0, timeout=(0, 10 ** 7)):
    return libc.syscall(202, ctypes.c_void_p(WORD), operation, value, (ctypes.c_long * 2)(*timeout), None, bits)
def end_after(work):
    thread = threading.Thread(target=work)
    thread.start()
    while libc.tgkill(os.getpid(), thread.native_id, 0) == 0: pass
def bytearray_of(size):
    return ctypes.create_string_buffer(size)
"""

# ---- honest code: each function body returns True

HONEST = {
    "locking files": """
        import sqlite3
        with open('lock', 'w') as file: fcntl.lockf(file, fcntl.LOCK_EX)
        with sqlite3.connect('data.db') as db:
            db.execute('pragma journal_mode=memory'); db.execute('create table t (n)')
            db.execute('insert into t values (3)')
        return sqlite3.connect('data.db').execute('select n from t').fetchall() == [(3,)]
        """,
    "joining threads in C": """
        import time
        done = []
        work = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(lambda _: done.append(time.sleep(0.05)))
        threads = [ctypes.c_ulong() for _ in range(4)]
        for thread in threads: assert libc.pthread_create(ctypes.byref(thread), None, work, None) == 0
        for thread in threads: assert libc.pthread_join(thread, None) == 0
        return len(done) == 4
        """,
    "torch's thread pools": """
        torch.set_num_threads(4); torch.set_num_interop_threads(2)
        x = torch.randn(300, 300, requires_grad=True)
        futures = [torch.jit.fork(lambda: x @ x) for _ in range(4)]
        sum(torch.jit.wait(each).sum() for each in futures).backward()
        threads = [threading.Thread(target=lambda: (x * 2).sum().backward()) for _ in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        return x.grad.shape == (300, 300)
        """,
    "a data loader": """
        from torch.utils.data import DataLoader, TensorDataset
        batches = list(DataLoader(TensorDataset(torch.arange(6)), 2, shuffle=True, num_workers=0))
        return sorted(torch.cat([batch for batch, in batches]).tolist()) == [0, 1, 2, 3, 4, 5]
        """,
    "mapped tensors": """
        torch.save(torch.arange(3), 'x.pt')
        shared = torch.from_file('numbers', shared=True, size=3)
        shared.fill_(2)
        return torch.load('x.pt', mmap=True).tolist() == [0, 1, 2] and np.fromfile('numbers', 'f4').sum() == 6
        """,
    "event loops and queues": """
        import asyncio, queue
        from concurrent.futures import ThreadPoolExecutor
        async def main():
            with ThreadPoolExecutor(3) as pool:
                return await asyncio.gather(*[asyncio.get_running_loop().run_in_executor(pool, abs, -n) for n in range(9)])
        items = queue.Queue(); threading.Timer(0.01, items.put, [1]).start()
        return asyncio.run(main()) == list(range(9)) and items.get(timeout=5) == 1
        """,
    "clocks": """
        import time
        names = ('time', 'monotonic', 'perf_counter', 'process_time', 'thread_time')
        return all(time.get_clock_info(name).resolution and getattr(time, name)() > 0 for name in names)
        """,
    "paths": """
        import pathlib
        return pathlib.Path('x/../y').resolve() == pathlib.Path.cwd() / 'y' and os.path.realpath('.') == os.getcwd()
        """,
}


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[tuple[str, str], subprocess.Popen[str]]]:
    running = {case: start(*case, "tests.test_channels") for case in CASES}
    yield running
    for script in running.values():
        script.kill()
        script.communicate()


@pytest.fixture(scope="module", params=CASES[:-1], ids="-".join)
def walled(
    request: pytest.FixtureRequest, scripts: dict[tuple[str, str], subprocess.Popen[str]]
) -> dict[str, Any]:
    return result(scripts[request.param])


@pytest.fixture(scope="module")
def bare(scripts: dict[tuple[str, str], subprocess.Popen[str]]) -> dict[str, Any]:
    """Return the results of an unprivileged user without a sandbox."""
    return result(scripts[CASES[-1]])


@pytest.mark.parametrize("name", CHANNELS)
def test_a_channel_is_closed(walled: dict[str, Any], name: str) -> None:
    assert not _open(walled, name), walled


@pytest.mark.parametrize("name", CHANNELS)
def test_a_channel_is_open_without_the_sandbox(bare: dict[str, Any], name: str) -> None:
    assert _open(bare, name), bare["refused"].get(name, "the attempt raised no error")


@pytest.mark.parametrize("name", HONEST)
def test_honest_code_runs(walled: dict[str, Any], name: str) -> None:
    assert walled["returned"].get(name) is True, walled["refused"].get(name)


def _open(seen: dict[str, Any], name: str) -> bool:
    return name in seen["woken"] if name in WAKES else bool(seen["returned"].get(name))


# ---- the script


class Partner:
    """The other end of the channels: a process that holds locks and waits for a futex."""

    def __init__(self, folder: Path) -> None:
        self.targets = {
            "process": os.getpid(),
            "user": os.getuid(),
            "link": str(folder / "link"),
        }
        (folder / "link").symlink_to("a message")
        # Take shared locks, because several scripts run at once. Unlike a process's lock, the second is not lost if another
        # descriptor of the same file is closed.
        self.locked = os.open("/dev/null", os.O_RDWR)
        fcntl.flock(self.locked, fcntl.LOCK_SH)
        fcntl.fcntl(self.locked, 37, struct.pack("hhqqi", fcntl.F_RDLCK, 0, 0, 1, 0))
        self._woke = threading.Event()
        self.woken: list[str] = []
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        """Notice when another process wakes this thread, which waits on a page of a library's file."""
        space: dict[str, Any] = {"T": self.targets}
        exec(FUTEXES, space)
        while True:
            if space["futex"](0, 0, timeout=(60, 0)) == 0:
                self._woke.set()

    def after(self, name: str) -> None:
        """Record whether an attempt woke the thread."""
        if name in WAKES and self._woke.wait(1):
            self.woken.append(name)
        self._woke.clear()


def main(user: str, wall: str) -> None:
    if user == "nobody" and os.geteuid() == 0:
        become_nobody(["-m", "tests.test_channels", user, wall])
    if wall == "denied":
        deny_namespaces()
    from autograder.sandbox.client import Server

    seen: dict[str, Any] = {"returned": {}, "refused": {}}
    server = Server("none", []) if wall == "none" else Server()
    with server, tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        partner = Partner(Path(folder))
        for name, body in {**CHANNELS, **HONEST}.items():
            run_one(server, name, body, partner.targets, seen, FUTEXES)
            partner.after(name)
    print(json.dumps({**seen, "woken": partner.woken}))


if __name__ == "__main__":
    main(*sys.argv[1:])
