# ruff: noqa
# Shared by all attacks: `T` contains the targets outside the sandbox, and `right` returns the correct answer (3 points).
import ctypes
import gc
import mmap
import os
import resource
import signal
import socket
import struct
import sys
import threading
import time

libc = ctypes.CDLL(None, use_errno=True)


class Leak(Exception):
    """An exception that carries the data found by an attack."""


def right(n, device=None):
    return torch.ones(n, n, dtype=torch.bool, device=device).tril()


def call(number, *arguments):
    """Make an x86-64 system call by number."""
    result = libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def grader_object(kind):
    """Return an object in this process whose class has this name. Raises StopIteration if there is none."""
    return next(found for found in gc.get_objects() if type(found).__name__ == kind)


def hidden_tests():
    """Return the global names of each module of hidden tests in this process, also of those that were imported again."""
    dicts = [found for found in gc.get_objects() if type(found) is dict]
    return [names for names in dicts if "test_masking" in str(names.get("__file__"))]


def respond(response, number=None, payload=b""):
    """Write a response in the worker's format. By default, it answers the current request."""
    import msgspec

    messages = sys.modules["autograder.protocol.messages"]
    if number is None:
        number = asked()
    header = msgspec.msgpack.encode(messages.NumberedResponse(number, response))
    send(struct.pack("<QQ", len(header), len(payload)) + header + payload)


def asked():
    """Return the number of the current request, read from the stack frame of the function that handles it."""
    frame = sys._getframe()
    while frame.f_code.co_name != "serve":
        frame = frame.f_back
    return frame.f_locals["number"]


def send(data):
    import select

    while data:
        select.select([], [3], [])
        data = data[os.write(3, data) :]


def messages():
    return sys.modules["autograder.protocol.messages"]


def tensor_of(dtype="bool", shape=(1,), strides=(1,), start=0, meta=False):
    """Return an answer that contains one tensor with the given metadata."""
    m = messages()
    return m.Answer(
        m.Data(m.TensorAt(0), [m.TensorMeta(dtype, list(shape), list(strides), start, False, meta)])
    )
