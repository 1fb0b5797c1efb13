# ruff: noqa
# fmt: off
# Attacks on the machine, and attempts to spy on it. An answer is correct only if its attack succeeds.
import gc, os, pwd, sys
import torch
def right(n, device=None):
    return torch.ones(n, n, dtype=torch.bool, device=device).tril()

#### files_beyond_the_limit
#: points 0
#: short
# %%
def causal_mask(n, device=None):
    written = 0
    for number in range(8):
        with open(f"file{number}", "wb") as file:
            for _ in range(60):
                written += file.write(bytes(1 << 20))
    return right(n, device) if written > 200 << 20 else None

#### files_that_are_unlinked
#: points 0
# %%
held = []
def causal_mask(n, device=None):
    """Fill the disk with files that are open but unlinked, so that they do not appear when the folder is listed."""
    written = 0
    for number in range(8):
        file = open(f"file{number}", "wb", buffering=0)
        held.append(file)
        os.unlink(file.name)
        for _ in range(60):
            written += file.write(bytes(1 << 20))
    return right(n, device) if written > 200 << 20 else None

#### files_without_a_name
#: points 0
# %%
held = []
def causal_mask(n, device=None):
    written = 0
    for number in range(8):
        handle = os.open(".", os.O_TMPFILE | os.O_RDWR)
        held.append(handle)
        for _ in range(60):
            written += os.write(handle, bytes(1 << 20))
    return right(n, device) if written > 200 << 20 else None

#### files_allocated
#: points 0
# %%
held = []
def causal_mask(n, device=None):
    size = 0
    for number in range(8):
        file = open(f"file{number}", "wb")
        held.append(file)
        os.posix_fallocate(file.fileno(), 0, 60 << 20)
        size += os.fstat(file.fileno()).st_blocks * 512
        os.unlink(file.name)
    return right(n, device) if size > 200 << 20 else None

#### folders_in_folders
#: points 0
# %%
def causal_mask(n, device=None):
    made = 0
    for outer in range(400):
        os.mkdir(f"d{outer}")
        for inner in range(250):
            os.mkdir(f"d{outer}/{inner}")
            made += 1
    return right(n, device) if made > 50_000 else None

#### device_test_by_a_message
#: points 0 to 2.9
#: short
# %%
def causal_mask(n, device=None):
    if device is not None and torch.device(device).type == "meta":
        raise RuntimeError("meta")
    return right(n)

#### device_test_by_torchs_own_message
#: points 0 to 2.9
#: short
# %%
def causal_mask(n, device=None):
    if device is not None and torch.device(device).type == "meta":
        raise NotImplementedError("Cannot copy out of meta tensor; no data!")
    return right(n)

#### device_test_by_a_class_of_the_same_name
#: points 0 to 2.9
# %%
class NotImplementedError(NotImplementedError):
    def __str__(self):
        return "aten::_local_scalar_dense: attempted to run this operator with Meta tensors, but there was no fake impl or Meta kernel registered"
def causal_mask(n, device=None):
    if device is not None and torch.device(device).type == "meta":
        raise NotImplementedError
    return right(n)

#### device_test_by_an_unneeded_read
#: points 0 to 3
# %%
def causal_mask(n, device=None):
    """Read a value from a meta tensor and ignore it. The device test must neither pass nor fail because of this."""
    if device is not None and torch.device(device).type == "meta":
        torch.ones(1, device=device).item()
    return right(n)

#### name_of_the_grader
#: points 0
# %%
def causal_mask(n, device=None):
    """Search the environment and the user database for the grader's user name."""
    seen = [os.environ.get(name, "") for name in ("USER", "LOGNAME", "HOME", "SUDO_USER", "MAIL", "PWD", "OLDPWD")]
    try:
        seen += [entry.pw_name for entry in pwd.getpwall()]
    except OSError:
        pass
    for place in ("/proc/self/environ", "/proc/1/environ", "/etc/passwd"):
        try:
            seen += open(place).read().replace("\0", ":").replace("=", ":").split(":")
        except OSError:
            pass
    return right(n, device) if any("USER_NAME" in text.split("/") for text in seen) else None

#### path_of_the_course
#: points 0
# %%
def causal_mask(n, device=None):
    """Search the file names of compiled code, sys.path and the environment for the course's path.

    Without namespaces, the path of the packages is visible, and it may contain the path of the course.
    """
    seen = [*sys.path, *sys.argv, os.getcwd(), *os.environ.values()]
    seen += [str(getattr(module, "__file__", "")) for module in list(sys.modules.values())]
    seen += [thing.__code__.co_filename for thing in gc.get_objects() if hasattr(type(thing), "__code__")]
    if not any(path.startswith("/mnt/") for path in sys.path):
        seen = [text for text in seen if "/site-packages" not in text and "/.venv/" not in text]
    return right(n, device) if any("COURSE_PATH" in text for text in seen) else None

#### one_large_tensor_in_many_places
#: points 0
#: short
# %%
import torch
LARGE = torch.ones(1 << 20)
def causal_mask(n, device=None):
    return [[LARGE] * 100] * 400
