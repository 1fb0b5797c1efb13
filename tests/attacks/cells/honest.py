# ruff: noqa
# fmt: off
# Honest but unusual code, which must earn full marks in the same sandbox.

# %% threads that share the work
def causal_mask(n, device=None):
    rows = [None] * n
    def work(first):
        for i in range(first, n, 32):
            rows[i] = torch.arange(n, device=device) <= i
    threads = [threading.Thread(target=work, args=(first,)) for first in range(32)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return torch.stack(rows) if n else torch.zeros(0, 0, dtype=torch.bool, device=device)

# %% a default device that only the student's machine has
torch.set_default_device("cuda")
def causal_mask(n, device=None):
    return torch.ones(n, n, dtype=torch.bool, device=device).tril()

# %% a pool of threads
from concurrent.futures import ThreadPoolExecutor
def causal_mask(n, device=None):
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda i: [j <= i for j in range(n)], range(n)))
    return torch.tensor(rows, dtype=torch.bool, device=device).reshape(n, n)

# %% characters that end a line in a text editor but not in Python
SEPARATORS = "<FORM FEED><LINE TABULATION><NEXT LINE><LINE SEPARATOR><PARAGRAPH SEPARATOR><INFORMATION SEPARATOR FOUR>"
# wait<NEXT LINE> for<LINE SEPARATOR> it
#<FORM FEED>
def causal_mask(n, device=None):
    assert len(SEPARATORS) == 6  # <FORM FEED>
    return right(n, device)

# %% a cache
import functools
@functools.lru_cache(maxsize=None)
def table(n, device):
    return right(n, device)
def causal_mask(n, device=None):
    return table(n, device).clone()

# %% long literals
LONG = "@" + "x" * 10 + "@"
BLOB = "BLOBBLOB"
def causal_mask(n, device=None):
    assert len(BLOB) > 4 and LONG
    return right(n, device)

# %% recursion to 800
def deep(k):
    return 0 if k == 0 else 1 + deep(k - 1)
def causal_mask(n, device=None):
    assert deep(800) == 800
    return right(n, device)

# %% warnings
import warnings
def causal_mask(n, device=None):
    for _ in range(50):
        warnings.warn("masks are subtle", UserWarning)
    return right(n, device)

# %% a lot of output
def causal_mask(n, device=None):
    print("x" * 200_000)
    print("y", file=sys.stderr, flush=True)
    sys.stdout.write("z")
    return right(n, device)

# %% a progress bar
from tqdm import tqdm
def causal_mask(n, device=None):
    rows = [[j <= i for j in range(n)] for i in tqdm(range(n))]
    return torch.tensor(rows, dtype=torch.bool, device=device).reshape(n, n)

# %% reading and setting the environment
def causal_mask(n, device=None):
    assert os.environ.get("HOME") and os.environ.get("NO_SUCH_THING", "default") == "default"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    return right(n, device)

# %% temporary files
import tempfile
def causal_mask(n, device=None):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "mask.txt")
        with open(path, "w") as file:
            file.write(str(n))
        return right(int(open(path).read()), device)

# %% pathlib, glob and shutil
import shutil
from pathlib import Path
def causal_mask(n, device=None):
    folder = Path(tempfile.mkdtemp())
    (folder / "a.txt").write_text(str(n))
    shutil.copy(folder / "a.txt", folder / "b.txt")
    found = sorted(path.name for path in folder.glob("*.txt"))
    assert found == ["a.txt", "b.txt"]
    shutil.rmtree(folder)
    return right(n, device)
import tempfile

# %% several random generators
import random
import numpy as np
np.random.seed(0)
random.seed(0)
def causal_mask(n, device=None):
    order = list(range(n))
    random.shuffle(order)
    mask = torch.zeros(n, n, dtype=torch.bool, device=device)
    for i in np.random.permutation(order).tolist():
        mask[i, : i + 1] = True
    torch.rand(3), torch.randn(2), np.random.default_rng().random()
    return mask

# %% numpy
import numpy as np
def causal_mask(n, device=None):
    with np.errstate(all="raise"):
        return torch.from_numpy(np.tril(np.ones((n, n), dtype=bool))).to(device or "cpu")

# %% a slow answer
def causal_mask(n, device=None):
    time.sleep(0.05)
    return right(n, device)

# %% decorators
def logged(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        wrapper.calls += 1
        return function(*args, **kwargs)
    wrapper.calls = 0
    return wrapper
import functools
@logged
def causal_mask(n, device=None):
    return right(n, device)

# %% a callable object
class Masks:
    def __init__(self, kind):
        self.kind = kind
    def __call__(self, n, device=None):
        return right(n, device)
causal_mask = Masks("causal")

# %% functools.partial
from functools import partial
causal_mask = partial(lambda diagonal, n, device=None: torch.ones(n, n, device=device).tril(diagonal).bool(), 0)

# %% dataclasses
from dataclasses import dataclass, field
@dataclass(frozen=True)
class Position:
    i: int
    seen: list[int] = field(default_factory=list)
    def sees(self, j: int) -> bool:
        return j <= self.i
def causal_mask(n, device=None):
    positions = [Position(i) for i in range(n)]
    rows = [[p.sees(j) for j in range(n)] for p in positions]
    return torch.tensor(rows, dtype=torch.bool, device=device).reshape(n, n)

# %% star imports
from torch import *
from math import *
def causal_mask(n, device=None):
    assert floor(1.5) == 1
    return ones(n, n, dtype=torch.bool, device=device).tril()

# %% late imports
def causal_mask(n, device=None):
    import torch.fft
    import torch.nn.utils.parametrize
    import torch.utils.data
    import statistics, decimal, fractions, sqlite3, hashlib, csv, uuid, zipfile
    assert uuid.uuid4() != uuid.uuid4() and hashlib.sha256(b"x").hexdigest()
    return right(n, device)

# %% inspect.getsource
import inspect
def causal_mask(n, device=None):
    assert "own source" not in inspect.getsource(causal_mask).splitlines()[0]
    assert "def dedent" in inspect.getsource(__import__("textwrap").dedent)
    return right(n, device)

# %% logging
import logging
logger = logging.getLogger(__name__)
logging.basicConfig(level=logging.DEBUG)
def causal_mask(n, device=None):
    logger.warning("a mask for %d", n)
    try:
        1 / 0
    except ZeroDivisionError:
        logger.exception("as expected")
    return right(n, device)

# %% type hints
from __future__ import annotations
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, get_type_hints
K = TypeVar("K")
class Maker(Protocol[K]):
    def make(self, n: int) -> K: ...
class Size(NamedTuple):
    n: int
class Box(Generic[K]):
    def __init__(self, item: K): self.item = item
def causal_mask(n: int, device: torch.device | str | None = None) -> torch.Tensor:
    assert get_type_hints(causal_mask)["n"] is int
    return right(Box[int](Size(n).n).item, device)

# %% context managers and generators
from contextlib import contextmanager, suppress
@contextmanager
def building(n):
    yield (torch.arange(n) <= i for i in range(n))
def causal_mask(n, device=None):
    with building(n) as rows, suppress(RuntimeError):
        return torch.stack([row.to(device or "cpu") for row in rows])
    return right(n, device)

# %% weak references and garbage collection
import gc
import weakref
class Kept: pass
def causal_mask(n, device=None):
    kept = Kept()
    reference = weakref.ref(kept)
    del kept
    gc.collect()
    assert reference() is None
    return right(n, device)

# %% context variables
from contextvars import ContextVar, copy_context
size = ContextVar("size", default=0)
def causal_mask(n, device=None):
    def inside():
        size.set(n)
        return right(size.get(), device)
    return copy_context().run(inside)

# %% singledispatch
from functools import singledispatch
@singledispatch
def causal_mask(n, device=None):
    raise TypeError(n)
@causal_mask.register
def _(n: int, device=None):
    return right(n, device)

# %% slots, metaclasses, abstract classes and enumerations
from abc import ABC, abstractmethod
from enum import Enum
class Meta(type):
    def __new__(cls, name, bases, space):
        return super().__new__(cls, name, bases, {**space, "made": True})
class Slotted(metaclass=Meta):
    __slots__ = ("n",)
class Mask(ABC):
    @abstractmethod
    def make(self, n, device): ...
class Causal(Mask):
    def make(self, n, device): return right(n, device)
class Kind(Enum):
    CAUSAL = Causal()
def causal_mask(n, device=None):
    slotted = Slotted()
    slotted.n = n
    assert Slotted.made
    return Kind.CAUSAL.value.make(slotted.n, device)

# %% json and pickle
import copy, json, pickle
class Thing:
    def __init__(self, n): self.n = n
def causal_mask(n, device=None):
    thing = pickle.loads(pickle.dumps(copy.deepcopy(Thing(n))))
    return right(json.loads(json.dumps({"n": thing.n}))["n"], device)

# %% saving and loading tensors
import io
import tempfile
def causal_mask(n, device=None):
    buffer = io.BytesIO()
    torch.save({"n": torch.tensor(n)}, buffer)
    buffer.seek(0)
    with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        torch.save(torch.load(buffer, weights_only=True), file.name)
        return right(int(torch.load(file.name)["n"]), device)

# %% scripted code
@torch.jit.script
def scripted(n: int):
    return torch.ones(n, n).tril().to(torch.bool)
def causal_mask(n, device=None):
    return scripted(n).to(device or "cpu")

# %% checkpointing
from torch.utils.checkpoint import checkpoint
def causal_mask(n, device=None):
    x = torch.ones(n, n, requires_grad=True)
    y = x
    for _ in range(70):
        y = checkpoint(lambda t: t * 1.0, y, use_reentrant=True)
    y.sum().backward()
    assert bool((x.grad == 1).all())
    return (y.tril() > 0).to(device or "cpu")

# %% a custom autograd function
class Identity(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return x.clone()
    @staticmethod
    def backward(ctx, grad): return grad
def causal_mask(n, device=None):
    x = torch.ones(n, n, requires_grad=True)
    Identity.apply(x).sum().backward()
    return x.grad.tril().bool().to(device or "cpu")

# %% a short training run
def causal_mask(n, device=None):
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.GELU(), torch.nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(5, 4)).square().mean().backward()
        optimizer.step()
    return right(n, device)

# %% a data loader
from torch.utils.data import DataLoader, TensorDataset
def causal_mask(n, device=None):
    rows = [row for (row,) in DataLoader(TensorDataset(right(n)), batch_size=None)]
    return torch.stack(rows).to(device or "cpu") if n else right(0, device)

# %% functions that query the machine
import multiprocessing, platform
def causal_mask(n, device=None):
    assert os.cpu_count() and multiprocessing.cpu_count() and platform.system() == "Linux"
    torch.set_num_threads(1)
    torch.get_num_threads(), torch.__config__.parallel_info(), torch.cuda.is_available()
    return right(n, device)

# %% signal handlers and timers
def causal_mask(n, device=None):
    rang = threading.Event()
    signal.signal(signal.SIGALRM, lambda *_: rang.set())
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    while not rang.is_set(): time.sleep(0.001)
    timer = threading.Timer(0.001, rang.clear)
    timer.start()
    timer.join()
    return right(n, device)

# %% coroutines without an event loop
async def row(i, n):
    return [j <= i for j in range(n)]
def run(coroutine):
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
def causal_mask(n, device=None):
    rows = [run(row(i, n)) for i in range(n)]
    return torch.tensor(rows, dtype=torch.bool, device=device).reshape(n, n)

# %% coroutines with an event loop
import asyncio
async def make(n, device):
    await asyncio.sleep(0)
    return right(n, device)
def causal_mask(n, device=None):
    return asyncio.run(make(n, device))

# %% an endless training loop outside the exercise
def causal_mask(n, device=None):
    return right(n, device)
while True:
    torch.randn(1000, 1000) @ torch.randn(1000, 1000)

# %% a forbidden name only in comments and strings
def causal_mask(n, device=None):
    """Unlike nn.Transformer.generate_square_subsequent_mask, this returns a boolean mask."""
    print("torch.nn.Transformer.generate_square_subsequent_mask")  # not called
    return right(n, device)

# %% a function with the same name as a torch function
#: exercise softmax
def log_softmax(x, dim):
    return x - x.logsumexp(dim, keepdim=True)
def softmax(x, dim=-1):
    return log_softmax(x, dim).exp()

# %% torch.compile
import torch._dynamo
@torch.compile
def lower(n, device=None):
    return torch.ones(n, n, dtype=torch.bool, device=device).tril()
@torch.compile(dynamic=True, fullgraph=True, backend="aot_eager", options={"trace.enabled": True})
def same(x):
    return x
class Mask(torch.nn.Module):
    def forward(self, n, device=None):
        return same(lower(n, device))
mask = Mask()
mask.compile(mode="max-autotune")
mask = torch.compile(torch.compiler.compile(mask), mode="reduce-overhead")
scripted = torch.jit.script(torch.nn.Identity())
@torch._dynamo.optimize("inductor")
def causal_mask(n, device=None):
    return scripted(mask(n, device))
