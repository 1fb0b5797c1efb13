"""Import the grader as quickly as possible, which takes about a second."""

import contextlib
import gc
import os

# NumPy would start a thread per core, and torch computes with one thread anyway.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
gc.disable()  # garbage collection slows down imports
try:
    with contextlib.suppress(Exception):  # the next import will report what is wrong
        import autograder.course.config
        import autograder.grading.grader  # noqa: F401
finally:
    gc.freeze()
    gc.enable()
