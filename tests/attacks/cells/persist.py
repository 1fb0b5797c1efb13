# ruff: noqa
# fmt: off
# Attempts to leave traces for the next submission, whose code looks for them.

# %% a daemon forked twice
#: stopped by namespaces, seccomp
#: effect survives
def causal_mask(n, device=None):
    libc.prctl(15, T["name"].encode(), 0, 0, 0)
    if os.fork() == 0:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if os.fork() == 0:
            signal.alarm(30)
            signal.pause()
        os._exit(0)
    os.wait()

# %% a surviving thread
#: stopped by process
#: effect marker
def causal_mask(n, device=None):
    threading.Thread(target=threading.Event().wait, name="marker", daemon=True).start()

# %% a file in /tmp
#: stopped by namespaces, landlock
#: effect remains
def causal_mask(n, device=None):
    open(f"/tmp/{T['name']}", "w").close()

# %% a file in /dev/shm
#: stopped by namespaces, landlock
#: effect remains
def causal_mask(n, device=None):
    open(f"/dev/shm/{T['name']}", "w").close()

# %% multiprocessing shared memory
#: stopped by namespaces, landlock
#: effect remains
def causal_mask(n, device=None):
    from multiprocessing import resource_tracker, shared_memory
    resource_tracker.register = lambda *args: None
    shared_memory.SharedMemory(T["name"], create=True, size=4096).close()

# %% System V shared memory
#: stopped by namespaces, seccomp
#: effect remains
def causal_mask(n, device=None):
    checked(libc.shmget(T["key"], 4096, 0o1666))

# %% a System V message queue
#: stopped by namespaces, seccomp
#: effect remains
def causal_mask(n, device=None):
    checked(libc.msgget(T["key"], 0o1666))

# %% a System V semaphore
#: stopped by namespaces, seccomp
#: effect remains
def causal_mask(n, device=None):
    checked(libc.semget(T["key"], 1, 0o1666))

# %% a file in the private folder
#: stopped by process
#: effect marker
def causal_mask(n, device=None):
    import tempfile
    open(os.path.join(tempfile.gettempdir(), T["name"]), "w").close()

# %% attributes of modules
#: stopped by process
#: effect marker
def causal_mask(n, device=None):
    import builtins
    import numpy
    builtins.marker = torch.marker = numpy.marker = torch.Tensor.marker = True

# %% a module
#: stopped by process
#: effect marker
def causal_mask(n, device=None):
    sys.modules["marker"] = sys
    sys.path.insert(0, "marker")

# %% the environment
#: stopped by process
#: effect marker
def causal_mask(n, device=None):
    os.environ["MARKER"] = "1"

# %% a changed default dtype
#: stopped by process
#: effect marker
def causal_mask(n, device=None):
    torch.set_default_dtype(torch.float64)

# %% disabled gradients
#: stopped by process
#: effect marker
def causal_mask(n, device=None):
    sys.setrecursionlimit(4321)
    torch._C._set_grad_enabled(False)

# %% a signal handler
#: stopped by process
#: effect marker
def causal_mask(n, device=None):
    signal.signal(signal.SIGALRM, signal.SIG_IGN)

# %% a key in the kernel keyring
#: stopped by namespaces, seccomp
#: effect marker
def causal_mask(n, device=None):
    call(248, b"user", b"marker", b"x", 1, -4)  # the user keyring, which all of the user's processes share

# %% the fork server's memory
#: stopped by namespaces, landlock, seccomp
#: effect marks
def causal_mask(n, device=None):
    with open(f"/proc/{os.getppid()}/mem", "r+b"):
        return right(n, device)

# %% the seeds of the next submission
#: stopped by process
#: says should be a tensor
def causal_mask(n, device=None):
    import random
    torch.manual_seed(1)
    random.seed(1)
