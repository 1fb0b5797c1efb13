"""Build a fork server's command line and environment. This module imports nothing, so that the server starts sooner."""

from __future__ import annotations

LAYERS = ("namespaces", "landlock", "seccomp", "limits")
# A service is a module with `warm_up()`, `prepare(data)` and `serve(connection)`. The worker service runs student code,
# and the reader service parses students' files.
WORKER = "autograder.sandbox.worker.worker"
READER = "autograder.slicing.reader_service"
GRADING = (WORKER, READER)  # the services for grading
# Relocate first, because that starts Python again. Call `load` and `main` separately, because `load` cannot remove the file
# path from a running function. The server ignores Ctrl-C, because the main process handles it.
SERVER = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "import autograder.sandbox.walls.relocation as r; r.relocate(sys.argv[1:]); "
    "import autograder.sandbox.server as s; s.main(*s.load(sys.argv[1:]))"
)
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # Otherwise, each thread of student code would reserve 128 MB of its memory limit.
    "MALLOC_ARENA_MAX": "1",
    "ATEN_CPU_CAPABILITY": "avx2",
    "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",  # otherwise, torch imports every package that registers a backend
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "PYTHONHASHSEED": "0",
    "HOME": "/nonexistent",
    "PATH": "/nonexistent",
    "LANG": "C.UTF-8",
}
