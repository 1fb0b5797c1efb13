"""Send and receive messages as frames.

A frame consists of two lengths, a MessagePack header validated by msgspec, and a payload of raw tensor bytes. Entry
points: `send` and `receive`.
"""

from __future__ import annotations

import math
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from autograder.protocol.messages import Numbered, NumberedResponse, WireError

MAX_HEADER = 1 << 20
MAX_PAYLOAD = 24 << 20
LENGTHS = struct.Struct("<QQ")
_ENCODER = msgspec.msgpack.Encoder()
REQUESTS = msgspec.msgpack.Decoder(Numbered)
RESPONSES = msgspec.msgpack.Decoder(NumberedResponse)
# A deadline is either a `time.monotonic()` value or a function. The function returns how many seconds to wait before
# calling it again, and raises an exception when time is up.
Deadline = float | Callable[[], float]


class Payload(Protocol):
    """The raw bytes that follow a message header, as a list of chunks, and their total size."""

    payload: list[bytes]
    size: int


def send(connection: socket.socket, message: Any, payload: Payload, deadline: Deadline) -> None:
    """Send one frame.

    Raises:
        TimeoutError: The peer did not read the frame before the deadline.
        ConnectionError: The peer closed the connection.
    """
    header = _ENCODER.encode(message)
    lengths = LENGTHS.pack(len(header), payload.size)
    rest = memoryview(b"".join([lengths, header, *payload.payload]))
    while rest:
        _wait(connection, deadline)
        try:
            rest = rest[connection.send(rest) :]
        except TimeoutError:
            continue


def receive(
    connection: socket.socket, decoder: msgspec.msgpack.Decoder[Any], deadline: Deadline
) -> tuple[Any, bytearray]:
    """Receive one frame and return its decoded header and its payload.

    Raises:
        TimeoutError: The deadline passed.
        ConnectionError: The peer closed the connection.
        WireError: The bytes are not a valid message.
    """
    lengths = _exactly(connection, LENGTHS.size, deadline)
    header_size, payload_size = LENGTHS.unpack(lengths)
    if header_size > MAX_HEADER or payload_size > MAX_PAYLOAD:
        raise WireError("the message is too large")
    body = _exactly(connection, header_size + payload_size, deadline)
    header, payload = body[:header_size], body[header_size:]
    try:
        return decoder.decode(header), payload
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, OverflowError) as error:
        raise WireError(f"the message is invalid: {error}") from None


def _exactly(connection: socket.socket, size: int, deadline: Deadline) -> bytearray:
    buffer = bytearray()
    while len(buffer) < size:
        _wait(connection, deadline)
        try:
            # Receive in chunks, so a forged length alone cannot make this process allocate memory.
            piece = connection.recv(min(size - len(buffer), 1 << 20))
        except TimeoutError:
            continue
        if not piece:
            raise ConnectionError("the connection was closed")
        buffer += piece
    return buffer


def _wait(connection: socket.socket, deadline: Deadline) -> None:
    """Set the timeout of the next socket operation to the time remaining until the deadline.

    Raises:
        TimeoutError: The deadline has passed. If the deadline is a function, it may raise other exceptions.
    """
    if callable(deadline):
        left: float | None = deadline()
    elif deadline == math.inf:
        left = None
    else:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
    connection.settimeout(left)
