"""Run attacks and honest code in every sandbox configuration, and observe their effects from outside the sandbox.

As a script, this file runs all attacks as one user in one sandbox configuration and prints the results as JSON.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autograder.sandbox.walls.rlimits import THREADS
from tests.attacks.as_user import become_nobody, deny_namespaces

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
NOBODY = 65534
# Seconds to wait for a killed process to free its memory. A process that survives an attack runs for 20 s.
SECONDS_TO_DIE = 8
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

# ---- attacks: each returns its result if it succeeds, and raises an exception if it fails

ATTACKS = {
    "read a file": "return open(T['file']).read()",
    "read the autograder": "return open(T['package']).read(20)",
    "read a hidden grader": "return open(T['grader']).read(20)",
    "read through /proc": "return open('/proc/%d/environ' % T['process'], 'rb').read().decode()",
    "write a file": "open(T['folder'] + '/written', 'w').close()",
    "change the mode of a file": "os.chmod(T['mode'], 0o600)",
    "change the mode of a readable file": "os.fchmod(os.open(T['mode'], os.O_RDONLY), 0o600)",
    "truncate a file": "os.truncate(T['truncated'], 0)",
    "delete a file": "os.unlink(T['deleted'])",
    "follow a symlink": "os.symlink(T['file'], os.environ['HOME'] + '/link'); return open(os.environ['HOME'] + '/link').read()",
    "TCP": "socket.create_connection(('127.0.0.1', T['tcp']), 1)",
    "UDP": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'got out', ('127.0.0.1', T['udp']))",
    "abstract socket": "socket.socket(socket.AF_UNIX).connect(T['abstract'].encode())",
    "datagram to a path": "socket.socketpair(type=socket.SOCK_DGRAM)[0].sendto(b'got out', T['path'])",
    "signal": "os.kill(T['process'], signal.SIGUSR1)",
    "signal through a descriptor": """
        a, b = socket.socketpair()
        fcntl.fcntl(a, fcntl.F_SETOWN, T['process'])
        fcntl.fcntl(a, fcntl.F_SETSIG, signal.SIGUSR1)
        fcntl.fcntl(a, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        b.send(b'x')
        """,
    "leave a process behind": """
        libc.prctl(15, T['name'].encode(), 0, 0, 0)
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                signal.alarm(20)
                while True: signal.pause()
            os._exit(0)
        os.wait()
        """,
    "exec": "os.execv('/bin/sh', ['sh', '-c', 'echo > ' + T['folder'] + '/executed'])",
    "too much memory": "return len(mmap.mmap(-1, 3 << 30))",
    "too much memory through torch": "return torch.ones(5 << 26).sum().item()",
    "raise a limit": "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "many descriptors": "return len([os.open('/dev/null', os.O_RDONLY) for _ in range(500)])",
    "many threads": """
        done = threading.Event()
        threading.stack_size(1 << 16)
        count = 0
        try:
            for count in range(2000): threading.Thread(target=done.wait, daemon=True).start()
        except RuntimeError: pass
        import time; time.sleep(0.5)
        done.set()
        return count
        """,
    "fill the disk": """
        for count in range(300):
            with open(f"{os.environ['HOME']}/{count}", 'wb') as file: file.write(bytes(1 << 20))
        while True: pass
        """,
    "fill the disk with unlinked files": """
        held = []
        for count in range(55):
            fd = os.open(str(count), os.O_RDWR | os.O_CREAT)
            if os.write(fd, bytes(7 << 20)) < 7 << 20: raise OSError(28, 'full')
            held.append(mmap.mmap(fd, 7 << 20)); os.close(fd); libc.unlink(b'%d' % count)
        while True: pass
        """,
    "fill the disk with O_TMPFILE": """
        fds = [os.open('.', os.O_RDWR | os.O_TMPFILE) for _ in range(40)]
        for fd in fds: os.write(fd, bytes(7 << 20))
        while True: pass
        """,
    "fill the disk with replaced files": """
        held = []
        for count in range(55):
            fd = os.open('new', os.O_RDWR | os.O_CREAT)
            if os.write(fd, bytes(7 << 20)) < 7 << 20: raise OSError(28, 'full')
            held.append(mmap.mmap(fd, 7 << 20)); os.close(fd)
            if libc.rename(b'new', b'old'): raise OSError(ctypes.get_errno(), 'rename')
        while True: pass
        """,
    "reserve space beyond the end of a file": """
        fd = os.open('reserved', os.O_RDWR | os.O_CREAT)
        if libc.fallocate(fd, 1, ctypes.c_long(0), ctypes.c_long(200 << 20)): raise OSError(ctypes.get_errno(), 'fallocate')
        return os.fstat(fd).st_blocks * 512
        """,
    "list /": "return sorted(os.listdir('/'))",
    "descriptors": """
        found = []
        for number in range(1024):
            try: os.fstat(number); found.append(number)
            except OSError: pass
        return found
        """,
    "environment": "return sorted(os.environ)",
    "home": "return os.environ['HOME']",
    "modules": "return sorted(n for n in sys.modules if n.startswith(('autograder', 'solutions', 'pytest')))",
    "a system call of another architecture": "libc.syscall(0x40000000 + 39)",
    "create a namespace": "if libc.unshare(0x10000000): raise OSError(ctypes.get_errno(), 'unshare')",
    "io_uring": "if libc.syscall(425, 1, ctypes.create_string_buffer(120)) < 0: raise OSError(ctypes.get_errno(), 'io_uring')",
    "ptrace": "if libc.ptrace(0, 0, 0, 0) < 0: raise OSError(ctypes.get_errno(), 'ptrace')",
    "look for private paths": """
        import gc, linecache, pwd, traceback, types
        found = set()
        def note(text, where):
            if isinstance(text, str) and any(part in text for part in T['private']): found.add(where + ': ' + text[:200])
        for name, module in list(sys.modules.items()):
            for attribute in ('__file__', '__cached__', '__path__', '__spec__', '__loader__'):
                note(str(getattr(module, '__dict__', {}).get(attribute)), name + '.' + attribute)
        for thing in gc.get_objects():
            if isinstance(thing, types.FunctionType): note(thing.__code__.co_filename, 'code')
        texts = [*sys.path, *sys.argv, *sys.orig_argv, sys.executable, sys.prefix, sys.base_prefix, sys._base_executable]
        for text in [*texts, *os.environ.values(), *sys.path_importer_cache, str(sys.meta_path)]: note(text, 'sys')
        frame = sys._getframe()
        while frame: note(frame.f_code.co_filename, 'frame'); frame = frame.f_back
        for name in linecache.cache: note(name, 'linecache')
        try: note(repr(pwd.getpwuid(os.getuid())), 'pwd')
        except (KeyError, OSError): pass
        try: note(open('/proc/self/cmdline').read(), 'cmdline')
        except OSError: pass
        try: sys.modules['autograder.sandbox.worker.worker'].Worker(None, None).handle(None, None, None, None)
        except TypeError: note(traceback.format_exc(), 'traceback')
        import glob
        packages = [f for f in sys.path if f.endswith('packages') or f.endswith('packages/0')][0]
        for path in [p for pattern in ('*', '__pycache__/*', '*.dist-info/*') for p in glob.glob(f'{packages}/{pattern}')]:
            try: note(open(path, errors='replace').read(20000), 'file ' + path)
            except OSError: pass
        return sorted(found)
        """,
    "leave a marker": """
        import builtins, random
        builtins.marker = torch.marker = np.marker = True
        os.environ['MARKER'] = '1'
        open(os.environ['HOME'] + '/marker', 'w').close()
        np.random.seed(1); torch.manual_seed(1); random.seed(1)
        libc.shmget(4242, 4096, 0o1666)
        """,
    "find the marker": """
        import builtins
        found = [hasattr(builtins, 'marker'), hasattr(torch, 'marker'), 'MARKER' in os.environ]
        return [*found, bool(os.listdir(os.environ['HOME'])), libc.shmget(4242, 4096, 0o666) >= 0]
        """,
    "kill everything": "os.kill(os.getppid(), 9); os.kill(-1, 9)",
    "still served": "return 'yes'",
}
IMPORTS = "import ctypes, fcntl, mmap, os, resource, signal, socket, sys, threading\nimport numpy as np, torch\n"
IMPORTS += "libc = ctypes.CDLL(None, use_errno=True)\n"

# ---- honest code: each function body returns True

HONEST = {
    "temporary files": """
        import tempfile
        with tempfile.TemporaryDirectory() as folder, open(folder + '/x', 'w+') as file:
            return file.write('text') == 4 and folder.startswith(os.environ['TMPDIR'])
        """,
    "saving tensors": """
        import tempfile
        with tempfile.NamedTemporaryFile() as file:
            torch.save(torch.arange(3), file.name)
            return torch.load(file.name).tolist() == [0, 1, 2]
        """,
    "renaming files": """
        open('a', 'w').close(); os.mkdir('d'); os.rename('a', 'd/a')
        return os.listdir('d') == ['a']
        """,
    "source of the standard library": """
        import inspect, json
        return 'def dumps' in inspect.getsource(json.dumps)
        """,
    "late imports": """
        import sympy, torch.distributions, torch.fft, torch.nn.utils.parametrize, sqlite3, hashlib, decimal, statistics
        return torch.distributions.Normal(0., 1.).sample().dim() == 0
        """,
    "threads": """
        results = []
        def work(): results.append(float((torch.ones(64, 64) @ torch.ones(64, 64)).sum()))
        threads = [threading.Thread(target=work) for _ in range(8)]
        for t in threads: t.start()
        for t in threads: t.join()
        return results == [64.0 ** 3] * 8
        """,
    "training": """
        model = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        optimizer = torch.optim.AdamW(model.parameters())
        model(torch.randn(2, 3, 8)).sum().backward(); optimizer.step()
        return True
        """,
    "checkpointing": """
        from torch.utils.checkpoint import checkpoint
        x = torch.ones(2, requires_grad=True); y = x
        for _ in range(80): y = checkpoint(lambda t: t * 1.0, y, use_reentrant=True)
        y.sum().backward()
        return x.grad.tolist() == [1.0, 1.0]
        """,
    "randomness": """
        import random, uuid
        return len({uuid.uuid4(), uuid.uuid4()}) == 2 and len(os.urandom(4)) == 4 and 0 <= random.random() < 1
        """,
    "removing and replacing files": """
        import shutil
        for _ in range(40):
            open('big', 'wb').write(bytes(4 << 20)); os.remove('big')
        open('x', 'w').write('old'); open('y', 'w').write('new'); os.replace('y', 'x')
        os.makedirs('a/b'); open('a/b/c', 'w').close(); shutil.rmtree('a')
        return open('x').read() == 'new'
        """,
    "recursion": "f = lambda n: n and 1 + f(n - 1); return f(800) == 800",
    "environment": "return os.environ.get('HOME') == os.getcwd() and os.cpu_count() > 0",
    "prints and warnings": "import warnings; print('x' * 100_000); warnings.warn('x'); return True",
    "devices": "return open('/dev/null').read() == '' and len(open('/dev/urandom', 'rb').read(3)) == 3",
    "half precision": "return (torch.ones(4, 4).half() @ torch.ones(4, 4).half()).sum().item() == 64",
}

WALLS = ("full", "denied", "none")
USERS = ("root", "nobody") if os.geteuid() == 0 else ("nobody",)
CASES = [(user, wall) for wall in ("full", "denied") for user in USERS] + [("nobody", "none")]


def start(user: str, wall: str, script: str = "tests.test_walls") -> subprocess.Popen[str]:
    """Start a script, by default this file, that runs attacks as `user` in the sandbox configuration `wall`."""
    return subprocess.Popen(
        [sys.executable, "-m", script, user, wall],
        env={**ENVIRONMENT, "SECRET_OF_THE_GRADER": "s3cret"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def result(script: subprocess.Popen[str]) -> dict[str, Any]:
    out, errors = script.communicate(timeout=500)
    assert script.returncode == 0, errors
    return json.loads(out)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[tuple[str, str], subprocess.Popen[str]]]:
    """Start one script per user and sandbox configuration. The scripts run in parallel to save time."""
    running = {case: start(*case) for case in CASES}
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
    """Return the results of the attacks that an unprivileged user runs without a sandbox."""
    return result(scripts[CASES[-1]])


FILLING = tuple(name for name in ATTACKS if "disk" in name)

HAD_EFFECT: dict[str, Callable[[dict[str, Any]], Any]] = {
    "read a file": lambda seen: "canary" in str(seen["returned"].get("read a file")),
    "read the autograder": lambda seen: not _refused(seen, "read the autograder"),
    "read a hidden grader": lambda seen: not _refused(seen, "read a hidden grader"),
    "read through /proc": lambda seen: "s3cret" in str(seen["returned"].get("read through /proc")),
    "write a file": lambda seen: "written" in seen["folder"],
    "change the mode of a file": lambda seen: seen["mode"] != 0o644,
    "truncate a file": lambda seen: not seen["truncated"],
    "delete a file": lambda seen: seen["deleted"],
    "follow a symlink": lambda seen: "canary" in str(seen["returned"].get("follow a symlink")),
    "TCP": lambda seen: seen["tcp"],
    "UDP": lambda seen: seen["udp"],
    "abstract socket": lambda seen: seen["abstract"],
    "datagram to a path": lambda seen: seen["path"],
    "signal": lambda seen: "signal" in seen["signals"],
    "signal through a descriptor": lambda seen: "signal through a descriptor" in seen["signals"],
    "leave a process behind": lambda seen: seen["survivors"],
    "exec": lambda seen: "executed" in seen["folder"],
    "too much memory": lambda seen: not _refused(seen, "too much memory"),
    "too much memory through torch": lambda seen: (
        not _refused(seen, "too much memory through torch")
    ),
    "many descriptors": lambda seen: not _refused(seen, "many descriptors"),
    "many threads": lambda seen: seen["returned"].get("many threads", 0) > THREADS,
    # The server may kill a process that has reserved this much before its call returns.
    "reserve space beyond the end of a file": lambda seen: (
        "Error" not in seen["refused"].get("reserve space beyond the end of a file", "")
    ),
    "list /": lambda seen: not _refused(seen, "list /"),
    "leave a marker": lambda seen: any(seen["returned"]["find the marker"]),
    "look for private paths": lambda seen: seen["returned"]["look for private paths"],
    "io_uring": lambda seen: not _refused(seen, "io_uring"),
    "create a namespace": lambda seen: not _refused(seen, "create a namespace"),
}


def _refused(seen: dict[str, Any], name: str) -> bool:
    return name in seen["refused"]


@pytest.mark.parametrize("name", HAD_EFFECT)
def test_an_attack_has_no_effect(walled: dict[str, Any], name: str) -> None:
    if name == "look for private paths" and walled["wall"] == "denied":
        pytest.skip("without namespaces, Python's installation path is still visible")
    assert not HAD_EFFECT[name](walled), walled["refused"].get(name, "the attack raised no error")


def test_paths_of_the_project_are_never_visible(
    walled: dict[str, Any],
) -> None:
    found = walled["returned"]["look for private paths"]
    assert [text for text in found if f"{ROOT}/autograder" in text or "editable" in text] == []


@pytest.mark.parametrize("name", sorted(set(HAD_EFFECT) - {"leave a marker"}))
def test_an_attack_has_an_effect_without_the_sandbox(bare: dict[str, Any], name: str) -> None:
    assert HAD_EFFECT[name](bare), bare["refused"].get(name, "the attack raised no error")


@pytest.mark.parametrize("name", ["raise a limit", "ptrace", "kill everything"])
def test_a_call_is_refused(walled: dict[str, Any], name: str) -> None:
    assert name not in walled["returned"]
    assert walled["refused"][name].startswith(("PermissionError", "ValueError: not allowed"))


def test_a_system_call_for_another_architecture_kills_the_process(walled: dict[str, Any]) -> None:
    assert (
        f"exit code {-signal.SIGSYS}" in walled["refused"]["a system call of another architecture"]
    )


@pytest.mark.parametrize("how", FILLING)
def test_filling_the_disk_ends_the_process_or_fails(how: str, walled: dict[str, Any]) -> None:
    assert walled["refused"][how].startswith(
        (
            f"exit code {-signal.SIGKILL}",
            "OSError: [Errno 28]",
            "PermissionError: [Errno 1]",
        )
    )


def test_nothing_is_left_on_disk(walled: dict[str, Any]) -> None:
    assert walled["left"] == []


def test_a_process_holds_only_its_wire_and_the_sandbox_modules(
    walled: dict[str, Any],
) -> None:
    returned = walled["returned"]
    assert returned["descriptors"] == [0, 1, 2, 3]
    assert "SECRET_OF_THE_GRADER" not in returned["environment"]
    packages = ("autograder.sandbox", "autograder.protocol")
    others = set(returned["modules"]) - {"autograder", "autograder.plain_text", *packages}
    assert all(name.startswith(tuple(f"{p}." for p in packages)) for name in others), others


def test_the_server_outlives_its_processes(walled: dict[str, Any]) -> None:
    assert walled["returned"]["still served"] == "yes"


@pytest.mark.parametrize("name", HONEST)
def test_honest_code_runs(walled: dict[str, Any], name: str) -> None:
    assert walled["honest"][name] is True


def test_the_layers_are_named(walled: dict[str, Any]) -> None:
    expected = ["namespaces"] if walled["wall"] == "full" else []
    assert walled["isolation"] == [*expected, "landlock", "seccomp", "limits"]


# ---- the script


def main(user: str, wall: str) -> None:
    if user == "nobody" and os.geteuid() == 0:
        become_nobody(["-m", "tests.test_walls", user, wall])
    if wall == "denied":
        deny_namespaces()
    from autograder.sandbox.client import Server

    server = Server("none", []) if wall == "none" else Server()
    with server, outside() as (targets, effects):
        isolation = server.isolation
        seen: dict[str, Any] = {"wall": wall, "isolation": isolation, "returned": {}, "refused": {}}
        skipped = {"kill everything", *FILLING} if wall == "none" else set()
        for name, body in ATTACKS.items():
            if name not in skipped:
                run_one(server, name, body, targets, seen)
                effects.after(name)
        seen["honest"] = {}
        for name, body in HONEST.items():
            one: dict[str, Any] = {"returned": {}, "refused": {}}
            run_one(server, name, body, targets, one)
            seen["honest"][name] = one["returned"].get(name, one["refused"].get(name))
        seen |= effects.seen()
    home = Path(seen["returned"]["home"])
    seen["left"] = [str(path) for path in (home, home.parent) if path.exists()]
    print(json.dumps(seen))


def run_one(
    server: Any,
    name: str,
    body: str,
    targets: dict[str, Any],
    seen: dict[str, Any],
    prelude: str = "",
) -> None:
    from autograder.execution.student import Student, StudentError
    from autograder.protocol import messages as m
    from autograder.protocol.limits import Limits
    from autograder.sandbox.errors import LimitExceeded, WorkerDied
    from autograder.sandbox.process import Process

    lines = [line for line in body.split("\n") if line.strip()]
    indent = min(len(line) - len(line.lstrip()) for line in lines)
    lines = ["    " + line[indent:] for line in lines]
    source = f"{IMPORTS}T = {targets!r}\n{prelude}\ndef attack():\n" + "\n".join(lines) + "\n"
    process = Process(server, Limits(20, 60, 1 << 30))
    student = Student(process)
    try:
        student.load(m.Load(source, [(1, source.count("\n"))], "attack", 1))
        returned = student.attack()
        seen["returned"][name] = (
            returned if isinstance(returned, (bool, int, float, str, list)) else None
        )
    except StudentError as error:
        seen["refused"][name] = f"{error.type}: {error.text}"
    except (WorkerDied, LimitExceeded) as error:
        seen["refused"][name] = str(error)
    finally:
        process.stop()


class Effects:
    """A recorder of the effects that attacks have on canary files, sockets and processes outside the sandbox."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = "s" + secrets.token_hex(5)
        self.signals: list[str] = []
        self.pending = 0
        self.survivors = 0
        signal.signal(signal.SIGUSR1, self._signalled)
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(type=socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.abstract = socket.socket(socket.AF_UNIX)
        self.abstract.bind(f"\0{self.name}")
        self.abstract.listen()
        self.path = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.path.bind(str(folder / "socket"))
        for each in (self.tcp, self.udp, self.abstract, self.path):
            each.setblocking(False)
        for name in ("file", "mode", "truncated", "deleted"):
            (folder / name).write_text("canary")
            (folder / name).chmod(0o644)
        for path in (folder, *folder.iterdir()):
            if os.geteuid() == 0:
                os.chown(path, NOBODY, NOBODY)
        (folder / "socket").chmod(0o777)

    def _signalled(self, number: int, frame: object) -> None:
        self.pending += 1

    def targets(self) -> dict[str, Any]:
        """Return the paths, ports and process ids that the attacks target."""
        import autograder

        package = Path(autograder.__file__)
        grader = next((package.parents[1] / "graders").rglob("test_*.py"))
        return {
            **{name: str(self.folder / name) for name in ("file", "mode", "truncated", "deleted")},
            "folder": str(self.folder),
            "package": str(package),
            "grader": str(grader),
            "tcp": self.tcp.getsockname()[1],
            "udp": self.udp.getsockname()[1],
            "abstract": f"\0{self.name}",
            "path": str(self.folder / "socket"),
            "process": os.getpid(),
            "name": self.name,
            "private": [str(ROOT), str(Path(sys.base_prefix)), str(Path.home()) + "/"],
        }

    def after(self, name: str) -> None:
        """Record whether an attack sent a signal or left processes running."""
        if self.pending:
            self.signals.append(name)
            self.pending = 0
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if (entry / "comm").read_text().strip() == self.name:
                    self.survivors += _outlives(int(entry.name), SECONDS_TO_DIE)
            except OSError:
                continue

    def seen(self) -> dict[str, Any]:
        """Return all effects that the attacks have had so far."""
        return {
            "folder": os.listdir(self.folder),
            "mode": os.stat(self.folder / "mode").st_mode & 0o777,
            "truncated": (self.folder / "truncated").read_text(),
            "deleted": not (self.folder / "deleted").exists(),
            "signals": self.signals,
            "survivors": self.survivors,
            "tcp": _received(self.tcp.accept),
            "udp": _received(self.udp.recv, 9),
            "abstract": _received(self.abstract.accept),
            "path": _received(self.path.recv, 9),
        }


def _outlives(pid: int, seconds: int) -> bool:
    """Wait up to `seconds` for a process to exit. Return whether it is still running, and kill it if so."""
    process = os.pidfd_open(pid)
    try:
        ended, _, _ = select.select([process], [], [], seconds)
        if not ended:
            signal.pidfd_send_signal(process, signal.SIGKILL)
        return not ended
    finally:
        os.close(process)


def _received(take: Any, *arguments: int) -> bool:
    try:
        take(*arguments)
    except BlockingIOError:
        return False
    return True


class outside:
    """A context manager that creates a folder of canary files and a set of listening sockets."""

    def __enter__(self) -> tuple[dict[str, Any], Effects]:
        self._folder = tempfile.TemporaryDirectory()
        os.chmod(self._folder.name, 0o755)
        effects = Effects(Path(self._folder.name))
        return effects.targets(), effects

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


if __name__ == "__main__":
    main(*sys.argv[1:])
