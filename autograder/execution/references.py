"""References in the place of a student's exercises: they run in a process of their own, and handles call them from the student's.

What crosses is data alone. A question of the student's process is checked, passed on to the references' process, and the answer
is passed back; the code of a reference never enters a process that runs student code.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from autograder.protocol import messages as m
from autograder.protocol.encoding import MAX_DEPTH, Outgoing, decode_tensors
from autograder.sandbox.process import Process


class Unusable(Exception):
    """A value that a reference cannot take or give; the text says which."""


SPECIAL = (
    "__len__",
    "__bool__",
)  # methods of a given class that its objects are asked for besides the public ones


@dataclass(frozen=True)
class Replaced:
    """Exercises that references answer for: their handles, their code, and what objects of given classes may be asked for."""

    handles: tuple[m.Reference, ...]
    load: m.Load
    given: Mapping[str, Sequence[str]]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(handle.name for handle in self.handles)


def handle(name: str, source: str) -> m.Reference:
    """Describe the function or class of this name in the course's own code."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return m.Reference(name, [n for n in methods(node) if not n.startswith("_")])
    return m.Reference(name)


def methods(node: ast.ClassDef) -> list[str]:
    """The names of the methods that a class defines."""
    return [inner.name for inner in node.body if isinstance(inner, ast.FunctionDef)]


def given_classes(sources: Sequence[str]) -> dict[str, list[str]]:
    """The classes that the course gives, each with the methods that its objects may be asked for."""
    classes = (
        n for source in sources for n in ast.parse(source).body if isinstance(n, ast.ClassDef)
    )
    return {
        node.name: [n for n in methods(node) if not n.startswith("_") or n in SPECIAL]
        for node in classes
    }


@dataclass
class References:
    """The process of the references, started by the first question, and what is known of the calls whose graphs it keeps."""

    replaced: Replaced
    start: Callable[[], Process]
    student: Process
    _process: Process | None = None
    _kept: dict[int, int] = field(default_factory=dict)
    _asked: dict[int, int] = field(default_factory=dict)

    def answer(self, question: m.Refer, payload: bytearray) -> tuple[m.Reply, Outgoing]:
        """Pass a call on.

        Raises:
            WireError: it is no call of a reference. LimitExceeded, WorkerDied: the process of the references does not answer.
        """
        try:
            arguments, out = self._passed(question.arguments, payload, self._object)
            number, response, data = self._request(self._call(question, arguments), out)
            if question.keep:
                self._kept[question.keep] = number
            return self._reply(response, data)
        except Unusable as error:
            return m.Reply(m.Data(None, []), str(error), "TypeError"), Outgoing()

    def gradients(self, question: m.AskBackward, payload: bytearray) -> tuple[m.Reply, Outgoing]:
        """Pass the gradients of a call on.

        Raises:
            WireError: there was no such call.
        """
        if question.keep not in self._kept:
            raise m.WireError("gradients of a call that was not made")
        upstream, out = self._passed(question.upstream, payload, _no_object)
        _, response, data = self._request(m.Backward(self._kept[question.keep], upstream, []), out)
        return self._reply(response, data)

    def owns(self, keep: int) -> bool:
        """Whether a call with this number was one of a reference."""
        return keep in self._kept

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    # ---- questions of the student's process

    def _call(self, question: m.Refer, arguments: m.Data) -> m.Request:
        keep = bool(question.keep)
        if isinstance(question.target, int):
            if not any(question.method in (h.methods or ()) for h in self.replaced.handles):
                raise m.WireError("a method that no reference has")
            return m.Apply(question.target, question.method, arguments, keep, question.grad)
        found = next((h for h in self.replaced.handles if h.name == question.target), None)
        if found is None:
            raise m.WireError("a call of what is not replaced")
        if found.methods is None:
            return m.Call(found.name, "", arguments, keep, question.grad)
        return m.Make(found.name, arguments)

    def _request(
        self, request: m.Request, out: Outgoing
    ) -> tuple[int, m.Answer | m.Failure, bytearray]:
        if self._process is None:
            self._process = self.start()
            _, loaded, _ = self._process.request(self.replaced.load, Outgoing(), self._object_asked)
            if isinstance(loaded, m.Failure):
                raise RuntimeError(f"a reference cannot be loaded: {loaded.text}")
        return self._process.request(request, out, self._object_asked)

    def _reply(self, response: m.Answer | m.Failure, data: bytearray) -> tuple[m.Reply, Outgoing]:
        if isinstance(response, m.Failure):
            return m.Reply(
                m.Data(None, []), response.text or response.type, response.type
            ), Outgoing()
        result, out = self._passed(response.result, data, _no_object)
        return m.Reply(result), out

    # ---- questions of the references' process, about objects that lie in the student's

    def _object(self, item: m.Handle) -> m.Value:
        """An object of a given class, such as a cache, as a model whose methods are asked for."""
        if item.module or item.type not in self.replaced.given:
            raise Unusable(f"a reference takes tensors and plain values, not a {item.type}")
        return m.Model(item.id, list(self.replaced.given[item.type]), [], False)

    def _object_asked(self, question: m.Question, payload: bytearray) -> tuple[m.Reply, Outgoing]:
        if isinstance(question, m.Ask):
            arguments, out = self._passed(question.arguments, payload, _no_object)
            keep = bool(question.keep)
            request: m.Request = m.Call(
                question.model, question.method, arguments, keep, question.grad
            )
        elif isinstance(question, m.AskBackward):
            upstream, out = self._passed(question.upstream, payload, _no_object)
            request = m.Backward(self._asked[question.keep], upstream, [])
        else:
            raise m.WireError("a reference that asks for a reference")
        number, response, data = self.student.request(request, out, self._refused)
        if isinstance(question, m.Ask) and question.keep:
            self._asked[question.keep] = number
        return self._reply(response, data)

    def _refused(self, question: m.Question, payload: bytearray) -> tuple[m.Reply, Outgoing]:
        raise m.WireError("a question in the place of an answer")

    def _passed(
        self, data: m.Data, payload: bytearray, convert: Callable[[m.Handle], m.Value]
    ) -> tuple[m.Data, Outgoing]:
        """The same data for another process, once its tensors are seen to be within the payload."""
        decode_tensors(data, payload)
        out = Outgoing()
        out.payload, out.size = [bytes(payload)], len(payload)
        return msgspec.structs.replace(data, value=_converted(data.value, convert, 0)), out


def _no_object(item: m.Handle) -> m.Value:
    raise Unusable(f"a reference works with tensors and plain values, not with a {item.type}")


def _converted(value: m.Value, convert: Callable[[m.Handle], m.Value], depth: int) -> m.Value:
    if depth > MAX_DEPTH + 1:
        raise m.WireError("a value that is nested too deeply")
    match value:
        case m.Items():
            return m.Items([_converted(item, convert, depth + 1) for item in value.items])
        case m.Pairs():
            return m.Pairs([(k, _converted(item, convert, depth + 1)) for k, item in value.items])
        case m.Handle():
            return convert(value)
        case m.Model() | m.Generator():
            raise m.WireError("a value that only the grader sends")
    return value
