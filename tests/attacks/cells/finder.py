# ruff: noqa
# An honest answer that first looks for traces of earlier submissions.
def traces():
    import builtins
    import tempfile

    import numpy as np

    return {
        "builtins": hasattr(builtins, "marker"),
        "torch": hasattr(torch, "marker") or hasattr(torch.Tensor, "marker"),
        "numpy": hasattr(np, "marker"),
        "environment": "MARKER" in os.environ,
        "module": "marker" in sys.modules,
        "path": "marker" in sys.path,
        "dtype": torch.get_default_dtype() != torch.float32,
        "files": T["name"] in os.listdir(tempfile.gettempdir()),
        "threads": any(t.name == "marker" for t in threading.enumerate()),
        "signals": signal.getsignal(signal.SIGALRM) != signal.SIG_DFL,
        "recursion": sys.getrecursionlimit() == 4321,
        "gradients": not torch.is_grad_enabled(),
        "keys": found_key(),
        "shared": libc.shmget(T["key"], 0, 0) >= 0,
    }


def found_key():
    key = libc.syscall(250, 10, -4, b"user", b"marker", 0)
    if key > 0:
        libc.syscall(250, 9, key, -4)
    return key > 0


def causal_mask(n, device=None):
    found = [name for name, there in traces().items() if there]
    if found:
        raise Leak(f"traces of another submission: {found}")
    return right(n, device)
