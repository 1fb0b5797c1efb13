# ruff: noqa
# fmt: off
# Code that burns CPU time or only waits.
import threading, time
import torch

#### burns
#: points 0
# %%
def causal_mask(n, device=None):
    while True:
        pass

#### sleeps
#: points 0
#: slow
# %%
def causal_mask(n, device=None):
    time.sleep(10**6)

#### sleeps_a_little
#: points 0 to 3
#: slow
# %%
def causal_mask(n, device=None):
    time.sleep(4.9)
    return torch.ones(n, n, dtype=torch.bool, device=device).tril()

#### waits_for_itself
#: points 0
#: slow
# %%
def causal_mask(n, device=None):
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()

#### sleeps_while_loading
#: points 0 to 3
#: slow
# %%
class Late:
    time.sleep(10**6)
# %%
def causal_mask(n, device=None, late=Late if "Late" in globals() else None):
    return torch.ones(n, n, dtype=torch.bool, device=device).tril()

#### burns_while_loading
#: points 0
# %%
n = 0
while True:
    n += 1
# %%
def causal_mask(size, device=None):
    return n

#### many_threads_that_burn
#: points 0
# %%
def causal_mask(n, device=None):
    def burn():
        x = torch.ones(300, 300)
        while True:
            x @ x
    for _ in range(60):
        threading.Thread(target=burn, daemon=True).start()
    threading.Event().wait()

#### endless_destructor
#: points 0 to 3
#: slow
# %%
class Undying:
    def __del__(self):
        while True:
            pass
def causal_mask(n, device=None):
    Undying()
    return torch.ones(n, n, dtype=torch.bool, device=device).tril()
