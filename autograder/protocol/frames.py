"""Sends and receives messages as frames: two lengths, a MessagePack header that msgspec checks, and a payload of tensors."""

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
# A moment, or a function that says how many seconds to wait before it is asked again, and raises when none are left.
Deadline = float | Callable[[], float]


class Payload(Protocol):
    """The raw bytes that follow a message's header, in pieces, and their total size."""

    payload: list[bytes]
    size: int


def send(connection: socket.socket, message: Any, payload: Payload, deadline: Deadline) -> None:
    """Send one frame.

    Raises:
        TimeoutError: the other side does not read.
        ConnectionError: the other side is gone.
    """
    header = _ENCODER.encode(message)
    parts = [memoryview(LENGTHS.pack(len(header), payload.size)), memoryview(header)]
    parts += [memoryview(part) for part in payload.payload]
    while parts:
        _wait(connection, deadline)
        try:
            sent = connection.sendmsg(parts[:64])
        except TimeoutError:
            continue
        while parts and sent >= len(parts[0]):
            sent -= len(parts[0])
            parts.pop(0)
        if sent:
            parts[0] = parts[0][sent:]


def receive(
    connection: socket.socket, decoder: msgspec.msgpack.Decoder[Any], deadline: Deadline
) -> tuple[Any, bytearray]:
    """Receive one frame: the decoded header and the payload.

    Raises:
        TimeoutError: the deadline passed. ConnectionError: the other side is gone.
        WireError: what came is not a message.
    """
    lengths = _exactly(connection, LENGTHS.size, deadline)
    header_size, payload_size = LENGTHS.unpack(lengths)
    if header_size > MAX_HEADER or payload_size > MAX_PAYLOAD:
        raise WireError("a message that is too large")
    body = _exactly(connection, header_size + payload_size, deadline)
    header, payload = body[:header_size], body[header_size:]
    try:
        return decoder.decode(header), payload
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, OverflowError) as error:
        raise WireError(f"not a message: {error}") from None


def _exactly(connection: socket.socket, size: int, deadline: Deadline) -> bytearray:
    buffer = bytearray()
    while len(buffer) < size:
        _wait(connection, deadline)
        try:
            # In pieces, so that a length without the bytes allocates nothing.
            piece = connection.recv(min(size - len(buffer), 1 << 20))
        except TimeoutError:
            continue
        if not piece:
            raise ConnectionError("the connection ended")
        buffer += piece
    return buffer


def _wait(connection: socket.socket, deadline: Deadline) -> None:
    """Let the next operation take as long as it may.

    Raises:
        TimeoutError: the moment has passed; a function raises what it likes.
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
