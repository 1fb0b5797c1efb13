# ruff: noqa
# fmt: off
# Attacks on time, memory and other resources. Each must end within its limits and affect no one else.

# %% endless child processes
#: stopped by seccomp
#: effect marks
def causal_mask(n, device=None):
    children = 0
    try:
        while children < 8:
            if os.fork() == 0:
                signal.pause()
            children += 1
    finally:
        return right(n, device) if children == 8 else None

# %% endless threads
#: stopped by limits
#: effect marks
#: seconds 10
def causal_mask(n, device=None):
    done = threading.Event()
    threading.stack_size(1 << 16)
    try:
        for _ in range(300):
            threading.Thread(target=done.wait, daemon=True).start()
        time.sleep(0.5)
        return right(n, device)
    finally:
        done.set()

# %% memory allocated through torch
#: stopped by limits
#: effect marks
def causal_mask(n, device=None):
    return right(n, device) if torch.empty(3 << 28).numel() else None

# %% memory allocated through numpy
#: stopped by limits
#: effect marks
def causal_mask(n, device=None):
    import numpy
    return right(n, device) if numpy.empty(3 << 30, dtype=numpy.uint8).size else None

# %% shared memory
#: stopped by limits
#: effect marks
def causal_mask(n, device=None):
    mmap.mmap(-1, 3 << 30).close()
    return right(n, device)

# %% memory in small pieces
#: stopped by limits
#: says crashed its Python process
#: seconds 0.7
def causal_mask(n, device=None):
    kept = []
    try:
        while True:
            kept.append(mmap.mmap(-1, 64 << 20))
    except OSError:
        os.abort()

# %% a raised limit
#: stopped by limits, seccomp
#: effect marks
def causal_mask(n, device=None):
    resource.setrlimit(resource.RLIMIT_NOFILE, (4000, 4000))
    return right(n, device)

# %% endless open files
#: stopped by limits
#: effect marks
def causal_mask(n, device=None):
    opened = []
    try:
        for _ in range(300):
            opened.append(os.open("/dev/null", os.O_RDONLY))
        return right(n, device)
    finally:
        for each in opened:
            os.close(each)

# %% one large file
#: stopped by limits, namespaces
#: says raised OSError
def causal_mask(n, device=None):
    with open("large", "wb") as file:
        for _ in range(100):
            file.write(bytes(1 << 20))
    return right(n, device)

# %% many small files
#: stopped by namespaces
#: says crashed its Python process
#: seconds 6
def causal_mask(n, device=None):
    try:
        for number in range(20_000):
            open(f"file{number}", "w").close()
    except OSError:
        os.abort()
    return right(n, device)

# %% a result without elements and with billions of rows
#: stopped by wire
#: says an empty tensor of shape
def causal_mask(n, device=None):
    return torch.empty(1 << 33, 0)

# %% deeply nested folders
#: stopped by wire
#: says should be a tensor
def causal_mask(n, device=None):
    try:
        for _ in range(1_000):
            os.mkdir("in")
            os.chdir("in")
    except OSError:
        pass

# %% endless output
#: stopped by deadline
#: says no answer within
#: seconds 0.5
def causal_mask(n, device=None):
    while True:
        print("x" * 1_000_000)
        os.write(1, b"x" * 100_000)

# %% an endless loop
#: stopped by deadline
#: says no answer within
#: seconds 0.4
def causal_mask(n, device=None):
    while True:
        pass

# %% an endless loop while loading
#: stopped by deadline
#: says not defined
#: seconds 0.4
while True: causal_mask = 1

# %% an endless loop that ignores every exception
#: stopped by deadline
#: says no answer within
#: seconds 0.1
def causal_mask(n, device=None):
    while True:
        try:
            for number in range(1, 32):
                try: signal.signal(number, signal.SIG_IGN)
                except (OSError, ValueError): pass
            while True: time.sleep(0.01)
        except BaseException:
            continue

# %% an endless loop in C
#: stopped by deadline
#: says no answer within
#: seconds 0.4
def causal_mask(n, device=None):
    return sum(range(10**15))

# %% a regular expression with exponential backtracking
#: stopped by deadline
#: says no answer within
#: seconds 0.4
def causal_mask(n, device=None):
    import re
    return re.match(r"(a|aa)*(a|a)*$", "a" * 60 + "b")

# %% endless matrix products
#: stopped by deadline
#: says no answer within
#: seconds 0.5
def causal_mask(n, device=None):
    x = torch.ones(2000, 2000)
    while True:
        x = x @ x

# %% threads that keep all cores busy without the GIL
#: stopped by deadline
#: says no answer within
#: seconds 0.5
def causal_mask(n, device=None):
    def burn():
        x = torch.ones(500, 500)
        while True: x @ x
    for _ in range(8):
        threading.Thread(target=burn, daemon=True).start()
    threading.Event().wait()

# %% a lock taken twice
#: stopped by deadline
#: says no answer within
#: seconds 0.1
def causal_mask(n, device=None):
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()

# %% an endless destructor
#: stopped by deadline
#: says no answer within
#: seconds 0.4
class Undying:
    def __del__(self):
        while True: pass
def causal_mask(n, device=None):
    Undying()
    return right(n, device)

# %% an endless exception message
#: stopped by deadline
#: says no answer within
#: seconds 0.4
class Endless(Exception):
    def __str__(self):
        while True: pass
def causal_mask(n, device=None):
    raise Endless

# %% an endless signal handler
#: stopped by deadline
#: says no answer within
#: seconds 0.4
def causal_mask(n, device=None):
    def handle(*_):
        while True: pass
    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    time.sleep(10)

# %% an endless exit handler
#: stopped by wire
#: says should be a tensor
def causal_mask(n, device=None):
    import atexit
    def never():
        while True: pass
    atexit.register(never)

# %% recursion until the stack overflows
#: stopped by wire
#: says crashed its Python process
def causal_mask(n, device=None):
    sys.setrecursionlimit(10**9)
    class Deep:
        def __getattr__(self, name): return getattr(self, name + "x"[:0])
        def __repr__(self): return repr(self)
    try:
        return repr(Deep())
    except RecursionError:  # since Python 3.12
        os.abort()

# %% a crash
#: stopped by wire
#: says crashed its Python process (exit code -11: Segmentation fault)
def causal_mask(n, device=None):
    return ctypes.string_at(8)

# %% an exception of 50 MB
#: stopped by wire
#: says raised RuntimeError
def causal_mask(n, device=None):
    raise RuntimeError("x" * 50_000_000)

# %% a chain of a hundred thousand exceptions
#: stopped by wire
#: says raised ValueError
def causal_mask(n, device=None):
    error = ValueError("first")
    for number in range(100_000):
        following = ValueError(str(number))
        following.__cause__ = error
        error = following
    raise error

# %% deeply nested lists
#: stopped by wire
#: says should be a tensor
def causal_mask(n, device=None):
    nested = []
    for _ in range(100_000):
        nested = [nested]
    return nested

# %% ten million items
#: stopped by wire
#: says should be a tensor
def causal_mask(n, device=None):
    return [None] * 10_000_000

# %% wide nested lists
#: stopped by deadline
#: says no answer within
#: seconds 0.4
def causal_mask(n, device=None):
    wide = [0] * 9_000
    for _ in range(3):
        wide = [wide] * 9_000
    return wide

# %% an integer with a million digits
#: stopped by wire
#: says should be a tensor
def causal_mask(n, device=None):
    return 10**1_000_000

# %% a tensor of 200 MB
#: stopped by wire
#: says elements
def causal_mask(n, device=None):
    return torch.zeros(50_000_000)

# %% a class name with a million letters
#: stopped by wire
#: says raised x
def causal_mask(n, device=None):
    raise type("x" * 1_000_000, (Exception,), {})("x")

# %% an exit outside the exercise
#: stopped by needs
#: effect costs
def causal_mask(n, device=None):
    return right(n, device)
os._exit(0)
