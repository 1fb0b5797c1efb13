# ruff: noqa
# fmt: off
# Attempts to read hidden tests, solutions, the secret, marks, other students' work or information about the machine.

# %% the secret that seeds the inputs
#: stopped by namespaces, landlock
#: effect leaks
def causal_mask(n, device=None):
    raise Leak(open(T["secret"]).read())

# %% a hidden test
#: stopped by namespaces, landlock
#: effect leaks
def causal_mask(n, device=None):
    raise Leak(open(T["grader"]).read()[-60:])

# %% the course's solution
#: stopped by namespaces, landlock
#: effect leaks
def causal_mask(n, device=None):
    raise Leak(open(T["solution"]).read()[-60:])

# %% a known mistake
#: stopped by namespaces, landlock
#: effect leaks
def causal_mask(n, device=None):
    raise Leak(open(T["mistake"]).read()[-60:])

# %% grading.toml
#: stopped by namespaces, landlock
#: effect leaks
def causal_mask(n, device=None):
    raise Leak(open(T["root"] + "/grading.toml").read()[-60:])

# %% the gradebook through mmap
#: stopped by namespaces, landlock
#: effect leaks
def causal_mask(n, device=None):
    with open(T["gradebook"], "rb") as file:
        raise Leak(bytes(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)).decode())

# %% another student's notebook
#: stopped by namespaces, landlock
#: effect leaks
def causal_mask(n, device=None):
    raise Leak(open(T["neighbour"]).read())

# %% the repository's history
#: stopped by namespaces, landlock
#: effect leaks
def causal_mask(n, device=None):
    found = []
    for folder, _, names in os.walk(T["root"] + "/.git"):
        found += [open(os.path.join(folder, name)).read() for name in names]
    raise Leak(" ".join(found) or "nothing")

# %% the hidden tests beside the installed package
#: stopped by namespaces, landlock
#: effect leaks
def causal_mask(n, device=None):
    import glob
    import re
    import site
    finders = [f for s in site.getsitepackages() for f in glob.glob(s + "/__editable__*finder.py")]
    package = re.search(r"'autograder': '([^']+)'", open(finders[0]).read())[1]
    tests = glob.glob(package + "/../graders/day1/test_*.py")
    raise Leak(f"{[open(t).read(60) for t in tests]} {len(finders)}"[:1500])

# %% the machine's user accounts
#: stopped by namespaces, landlock
#: effect leaks
def causal_mask(n, device=None):
    raise Leak(open("/etc/passwd").read(100))

# %% through a symbolic link
#: stopped by namespaces, landlock, seccomp
#: effect leaks
def causal_mask(n, device=None):
    import tempfile
    link = os.path.join(tempfile.gettempdir(), "link")  # a fixed name, because it occurs in a message
    os.symlink(T["secret"], link)
    raise Leak(open(link).read())

# %% through the root that /proc shows
#: stopped by namespaces, landlock
#: effect leaks
def causal_mask(n, device=None):
    raise Leak(open("/proc/self/root" + T["secret"]).read())

# %% through an open folder and parent paths
#: stopped by namespaces, landlock
#: effect leaks
def causal_mask(n, device=None):
    folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    path = "../" * 20 + T["secret"].lstrip("/")
    raise Leak(os.read(os.open(path, os.O_RDONLY, dir_fd=folder), 100).decode())

# %% through openat2
#: stopped by namespaces, landlock, seccomp
#: effect leaks
def causal_mask(n, device=None):
    how = struct.pack("QQQ", os.O_RDONLY, 0, 0)
    raise Leak(os.read(call(437, -100, T["secret"].encode(), how, len(how)), 100).decode())

# %% the existence and size of a hidden file
#: stopped by namespaces
#: effect marks
def causal_mask(n, device=None):
    return right(n, device) if os.stat(T["grader"]).st_size else None

# %% the environment of the grader
#: stopped by namespaces, landlock, seccomp
#: effect leaks
def causal_mask(n, device=None):
    text = open(f"/proc/{T['process']}/environ", errors="replace").read()
    raise Leak(text[text.index("CANARY"):][:100])

# %% the grader's memory through a system call
#: stopped by namespaces, landlock, seccomp
#: effect leaks
def causal_mask(n, device=None):
    room = ctypes.create_string_buffer(T["length"])
    here = struct.pack("PN", ctypes.addressof(room), T["length"])
    there = struct.pack("PN", T["address"], T["length"])
    call(310, T["process"], here, 1, there, 1, 0)
    raise Leak(room.value.decode())

# %% the grader's memory through /proc
#: stopped by namespaces, landlock
#: effect leaks
def causal_mask(n, device=None):
    with open(f"/proc/{T['process']}/mem", "rb") as memory:
        memory.seek(T["address"])
        raise Leak(memory.read(T["length"]).decode())

# %% the grader's memory through ptrace
#: stopped by namespaces, landlock, seccomp
#: effect leaks
def causal_mask(n, device=None):
    checked(libc.ptrace(16, T["process"], None, None))  # attach
    os.waitpid(T["process"], 0x40000000)
    libc.ptrace.restype = ctypes.c_long
    words = [libc.ptrace(2, T["process"], ctypes.c_void_p(T["address"] + i), None) for i in range(0, T["length"], 8)]
    libc.ptrace(17, T["process"], None, None)
    raise Leak(struct.pack(f"{len(words)}q", *words).decode(errors="replace"))

# %% a descriptor of the grader through a pidfd
#: stopped by namespaces, landlock, seccomp
#: effect leaks
def causal_mask(n, device=None):
    grader = call(434, T["process"], 0)  # pidfd_open
    taken = call(438, grader, T["descriptor"], 0)  # pidfd_getfd
    raise Leak(os.pread(taken, 100, 0).decode())

# %% an inherited descriptor
#: stopped by process
#: effect leaks
def causal_mask(n, device=None):
    found = []
    for number in range(256):
        try:
            found.append(os.pread(number, 100, 0).decode(errors="replace"))
        except OSError:
            continue
    raise Leak(" ".join(found) or "nothing")

# %% the grader's secret in the garbage collector
#: stopped by process
#: effect leaks
def causal_mask(n, device=None):
    raise Leak(grader_object("Grader")._secret.decode())

# %% the source of the calling test
#: stopped by process
#: effect leaks
def causal_mask(n, device=None):
    import inspect
    frame = sys._getframe()
    while not frame.f_code.co_name.startswith("test_"):
        frame = frame.f_back
    raise Leak(open(inspect.getsourcefile(frame)).read()[-60:])

# %% the expected value in the test's frame
#: stopped by process
#: effect marks
def causal_mask(n, device=None):
    frame = sys._getframe()
    while "expected" not in frame.f_locals:
        frame = frame.f_back
    expected = frame.f_locals["expected"]
    return expected if len(expected) == n else None

# %% the grader's modules in the fork server
#: stopped by process
#: effect leaks
def causal_mask(n, device=None):
    found = [name for name in sys.modules if name.startswith(("graders", "autograder.execution", "solutions", "pytest"))]
    secrets = [str(v) for o in gc.get_objects() if type(o) is dict for v in list(o.values()) if type(v) is bytes and v.startswith(b"CANARY")]
    raise Leak(f"{secrets} {found}"[:1500])
