# ruff: noqa
# fmt: off
# Attempts to change the checks, the grader's process, the course or the marks.

# %% comparisons that always agree
#: stopped by process
#: effect marks
torch.Tensor.__bool__ = lambda self: True
torch.Tensor.__ne__ = lambda self, other: torch.zeros(())
torch.Tensor.any = lambda self, *args, **kwargs: False
def causal_mask(n, device=None):
    return torch.zeros(n, n, dtype=torch.bool, device=device)
causal_mask.patched = torch.Tensor.__bool__

# %% torch.equal and allclose that always agree
#: stopped by process
#: effect marks
def agree(*args, **kwargs):
    return True
def patch():
    for name in ("equal", "allclose", "isclose"):
        setattr(torch, name, agree)
    for names in hidden_tests():
        for check in ("equal", "close", "shaped", "as_bool", "check_boolean", "finite", "unchanged", "on_meta"):
            names[check] = lambda seen, *a, **k: right(7)
    return True
PATCHED = patch()
def causal_mask(n, device=None):
    return PATCHED and None

# %% a replaced bool
#: stopped by process
#: effect marks
def causal_mask(n, device=None):
    import builtins
    class Yes(int):
        def __new__(cls, *args):
            return 1
    for names in hidden_tests():
        names["bool"] = Yes
        names["equal"] = lambda *args: None
    return torch.zeros(n, n, dtype=torch.bool)

# %% tests that do nothing
#: stopped by process
#: effect marks
def causal_mask(n, device=None):
    sys.modules["autograder.execution.collect"].Test.run = lambda *args: None
    return None

# %% an outcome that is always passed
#: stopped by process
#: effect marks
def causal_mask(n, device=None):
    attempts = sys.modules["autograder.execution.attempt"]
    real = attempts.Outcome
    attempts.Outcome = lambda *_, **__: real(True, "")
    return None

# %% a patched sum of points
#: stopped by process
#: effect marks
def causal_mask(n, device=None):
    sys.modules["autograder.grading.exercise_grader"].exact_sum = lambda points: 3.0
    return None

# %% a patched worker
#: stopped by wire
#: says should be a tensor
def causal_mask(n, device=None):
    m = messages()
    worker = grader_object("Worker")
    type(worker).handle = lambda self, *args: (m.Answer(m.Data("passed", []), [], [], []), sys.modules["autograder.protocol.encoding"].Outgoing())
    return None

# %% a patched encoder of messages
#: stopped by wire
#: says invalid message
def causal_mask(n, device=None):
    sys.modules["autograder.protocol.frames"].send = lambda connection, *rest: connection.sendall(b"\xff" * 64)
    return right(n, device)

# %% the gradebook
#: stopped by namespaces, landlock
#: effect changes
def causal_mask(n, device=None):
    open(T["gradebook"], "w").write("100")

# %% removing the secret
#: stopped by namespaces, landlock
#: effect changes
def causal_mask(n, device=None):
    os.unlink(T["secret"])

# %% replacing the secret
#: stopped by namespaces, landlock
#: effect changes
def causal_mask(n, device=None):
    os.rename(T["neighbour"], T["secret"])

# %% truncating a file
#: stopped by namespaces, landlock, seccomp
#: effect changes
def causal_mask(n, device=None):
    os.truncate(T["writable"], 0)

# %% rewriting another student's notebook
#: stopped by namespaces, landlock
#: effect changes
def causal_mask(n, device=None):
    descriptor = os.open(T["neighbour"], os.O_WRONLY)
    os.pwrite(descriptor, b"worse", 0)

# %% a conftest.py beside the tests
#: stopped by namespaces, landlock
#: effect changes
def causal_mask(n, device=None):
    with open(T["root"] + "/conftest.py", "w") as file:
        file.write("import pytest\n")

# %% a folder named like a package
#: stopped by namespaces, landlock
#: effect changes
def causal_mask(n, device=None):
    os.mkdir(T["root"] + "/torch")

# %% a symbolic link in the course
#: stopped by namespaces, landlock, seccomp
#: effect changes
def causal_mask(n, device=None):
    os.symlink("/etc/passwd", T["root"] + "/sitecustomize.py")

# %% a hard link
#: stopped by namespaces, landlock, seccomp
#: effect changes
def causal_mask(n, device=None):
    os.link(T["writable"], T["root"] + "/linked")

# %% the mode of a file
#: stopped by namespaces, seccomp
#: effect changes
def causal_mask(n, device=None):
    os.chmod(T["writable"], 0o600)

# %% the times of a file
#: stopped by namespaces, seccomp
#: effect changes
def causal_mask(n, device=None):
    os.utime(T["writable"], (1, 1))

# %% a pipe instead of a file
#: stopped by namespaces, landlock, seccomp
#: effect changes
def causal_mask(n, device=None):
    os.mkfifo(T["root"] + "/submitted/bob/day1/day2.ipynb")

# %% writing the grader's memory
#: stopped by namespaces, landlock, seccomp
#: effect marks
def causal_mask(n, device=None):
    room = ctypes.create_string_buffer(b"C")
    here, there = (struct.pack("PN", address, 1) for address in (ctypes.addressof(room), T["address"]))
    call(311, T["process"], here, 1, there, 1, 0)
    return right(n, device)

# %% the grader's limits
#: stopped by namespaces, landlock, seccomp
#: effect marks
def causal_mask(n, device=None):
    resource.prlimit(T["process"], resource.RLIMIT_CORE)
    return right(n, device)

# %% a file among the installed packages
#: stopped by namespaces, landlock
#: effect changes
def causal_mask(n, device=None):
    for folder in [os.path.dirname(torch.__file__), T["root"]]:
        try:
            with open(folder + "/sitecustomize.py", "w") as file:
                file.write("import os")
        except OSError:
            continue
