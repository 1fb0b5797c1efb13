# ruff: noqa
# fmt: off
# Responses forged by a worker. A case solves its exercise only if it returns `right(…)`.
import math, struct, sys
import msgspec
import torch
def forge(change):
    """Pass each response to `change` as plain data. If `change` returns bytes, they are sent unchanged."""
    def send(connection, message, payload, deadline):
        plain = msgspec.to_builtins(message)
        plain["response"] = dict(plain["response"])
        body = b"".join(bytes(part) for part in payload.payload)
        header = change(plain) or plain
        if not isinstance(header, bytes):
            header = msgspec.msgpack.encode(header)
        connection.sendall(struct.pack("<QQ", len(header), len(body)) + header + body)
    sys.modules["autograder.protocol.frames"].send = send
def on(kind, **fields):
    """Change these fields in every response of the given type."""
    def change(plain):
        if plain["response"]["message"] == kind:
            plain["response"].update(fields)
    forge(change)
def instead(response):
    def change(plain):
        if plain["response"]["message"] == "Answer":
            plain["response"] = response
    forge(change)
def tensor(dtype="bool", shape=(3, 3), strides=(3, 1), start=0, grad=False, meta=False):
    meta = [dtype, list(shape), list(strides), start, grad, meta]
    return {"message": "Answer", "result": {"value": {"message": "TensorAt", "index": 0}, "tensors": [meta]}}
def value(item):
    return {"message": "Answer", "result": {"value": item, "tensors": []}}
def items(*parts):
    return {"message": "Items", "items": list(parts)}
def right(n, device=None):
    return torch.ones(n, n, dtype=torch.bool, device=device).tril()

#### infinite_line
#: points 0
#: short
# %%
def causal_mask(n, device=None, _=instead(value(items(items(math.inf, "ValueError", "x"))))):
    return None

#### line_that_is_not_a_number
#: points 0
#: short
# %%
def causal_mask(n, device=None, _=instead(value(items(items(math.nan, "ValueError", "x"))))):
    return None

#### line_forged_as_in_an_audit
#: points 0
#: short
# %%
def causal_mask(n, device=None, _=sys._getframe(1).f_locals.get("errors", []).append((float("inf"), ValueError("x")))):
    return None

#### lines_of_all_types
#: points 0
#: short
# %%
def causal_mask(n, device=None, _=instead(value(items(*(items(odd, "E", "x") for odd in (-1, 2**63 - 1, -2**63, 1e308, "1", "", None, True, items(1), {"message": "Opaque", "type": "x"})))))):
    return None

#### problems_that_are_not_triples
#: points 0
#: short
# %%
def causal_mask(n, device=None, _=instead(value(items(items(), items(1), items(1, "E"), items(1, "E", "x", 4), 7, "text", None, items(1, None, 3), items(1, items(), {"message": "Pairs", "items": []}))))):
    return None

#### problems_by_the_thousand
#: points 0
#: short
# %%
def causal_mask(n, device=None, _=instead(value(items(*(items(line % 40, "ValueError", f"problem {line}") for line in range(10_000)))))):
    return None

#### problems_of_great_length
#: points 0
# %%
def causal_mask(n, device=None, _=instead(value(items(*(items(line % 40, "E" * 9_000, f"{line}" + "=1+1;\n\x1b[31m\u202e" * 900) for line in range(40)))))):
    return None

#### load_returns_nothing
#: points 0 to 3
# %%
def causal_mask(n, device=None, _=instead(value(None))):
    return None

#### load_returns_a_tensor
#: points 0
# %%
def causal_mask(n, device=None, _=instead(tensor(shape=[2], strides=[1], start=0))):
    return None

#### meta_tensor_of_many_exabytes
#: points 0
#: short
# %%
def causal_mask(n, device=None):
    instead(tensor("float64", [1 << 30, 1 << 31], [], meta=True))
    return right(n)

#### meta_tensor_forged_as_in_an_audit
#: points 0
#: short
# %%
from autograder.protocol import messages as m
from autograder.protocol.encoding import Outgoing
# %%
def causal_mask(n, device=None):
    frame = sys._getframe()
    while frame.f_code.co_name != "handle":
        frame = frame.f_back
    def handle(number, request, payload):
        if isinstance(request, m.Call):
            meta = m.TensorMeta("float64", [1 << 30, 1 << 31], [], 0, False, True)
            return m.Answer(m.Data(m.TensorAt(0), [meta])), Outgoing()
        return m.Answer(m.Data(None, [])), Outgoing()
    frame.f_locals["self"].handle = handle

#### meta_tensors_of_all_shapes
#: points 0
# %%
shapes = [[1 << 40], [1 << 40, 1 << 20], [0, 1 << 61], [1 << 20] * 3, [1] * 16, [2] * 61, [1 << 62, 0, 5], []]
def causal_mask(n, device=None):
    turn = []
    def change(plain):
        turn.append(0)
        plain["response"] = tensor(["float64", "bool", "bfloat16"][len(turn) % 3], shapes[len(turn) % len(shapes)], [], meta=True)
    forge(change)
    return right(n)

#### meta_tensor_as_every_answer
#: points 0
# %%
def causal_mask(n, device=None):
    instead(tensor("bool", [n, n], [], meta=True))
    return right(n)

#### huge_tensor_of_few_bytes
#: points 0
# %%
def causal_mask(n, device=None):
    instead(tensor("bool", [1 << 11, 1 << 11], [0, 0]))
    return right(n)

#### tensors_that_need_gradients
#: points 0
# %%
def causal_mask(n, device=None):
    instead(tensor("int64", [0], [1], grad=True))
    return right(n)

#### gradients_of_a_bool
#: points 0 to 3
# %%
def causal_mask(n, device=None):
    def change(plain):
        for meta in plain["response"].get("result", {}).get("tensors", []):
            meta[4] = True
    forge(change)
    return right(n)

#### data_nested_to_the_limit
#: points 0
#: short
# %%
deep = None
for _ in range(400):
    deep = items(deep)
def causal_mask(n, device=None):
    instead(value(deep))

#### data_nested_a_hundred_thousand_deep
#: points 0
# %%
def causal_mask(n, device=None):
    def change(plain):
        head = msgspec.msgpack.encode(plain["number"])
        wrap = b"\x82\xa7message\xa5Items\xa5items\x91"
        return b"\x82\xa6number" + head + b"\xa8response\x82\xa7message\xa6Answer\xa6result\x82\xa5value" + wrap * 40_000 + b"\xc0\xa7tensors\x90"
    forge(change)

#### data_of_many_items
#: points 0
#: short
# %%
def causal_mask(n, device=None):
    instead(value(items(*[items(*[0] * 99)] * 3_000)))

#### dictionaries_with_odd_keys
#: points 0
# %%
def causal_mask(n, device=None):
    instead(value({"message": "Pairs", "items": [["", None], ["a", 1], ["a", math.nan], ["\x00\x1b[31m\u202e", "=1+1"]] * 2_000}))

#### ask_instead_of_an_answer
#: points 0
#: short
# %%
def causal_mask(n, device=None):
    instead({"message": "Ask", "model": -1, "method": "__init__", "arguments": {"value": items(items(), {"message": "Pairs", "items": []}), "tensors": []}, "training": True, "grad": True})

#### ask_while_loading
#: points 0
#: short
# %%
def causal_mask(n, device=None, _=instead({"message": "AskBackward", "keep": -(2**63), "upstream": {"value": None, "tensors": []}})):
    return right(n)

#### progress_instead_of_an_answer
#: points 0
# %%
def causal_mask(n, device=None):
    instead({"message": "Running", "line": -5})

#### handle_of_a_negative_number
#: points 0
#: short
# %%
def causal_mask(n, device=None):
    instead(value({"message": "Handle", "id": -(2**63), "type": "\x1b[31m\u202e" * 99, "module": True}))

#### handle_of_an_odd_object
#: points 0
# %%
def causal_mask(n, device=None):
    instead(value({"message": "Handle", "id": 2**63 - 1, "type": "", "module": False}))

#### generator_of_the_grader
#: points 0
# %%
def causal_mask(n, device=None):
    instead(value({"message": "Generator", "id": 0, "seed": -1}))

#### model_of_the_grader
#: points 0
# %%
def causal_mask(n, device=None):
    instead(value({"message": "Model", "id": 0, "methods": ["__class__", "forward"], "attributes": [["__dict__", None]], "training": True}))

#### invalid_names
#: points 0
# %%
def causal_mask(n, device=None):
    instead(value(items({"message": "Named", "kind": "dtype", "name": "complex128"}, {"message": "Named", "kind": "device", "name": "cuda:99"}, {"message": "Named", "kind": "__import__", "name": "os"})))

#### answer_to_another_call
#: points 0
#: short
# %%
def causal_mask(n, device=None):
    def change(plain):
        plain["number"] -= 1
    forge(change)
    return right(n)

#### answer_to_call_minus_one
#: points 0
# %%
def causal_mask(n, device=None):
    def change(plain):
        plain["number"] = -(2**63)
    forge(change)
    return right(n)

#### modes_of_missing_models
#: points 0 to 3
# %%
def causal_mask(n, device=None):
    on("Answer", modes=[[-1, True, True], [2**63 - 1, False, False]] * 5_000)
    return right(n)

#### modes_of_odd_types
#: points 0
#: short
# %%
def causal_mask(n, device=None):
    on("Answer", modes=[["x", 2], [1.5, None, True], [], [1, True, 3]])
    return right(n)

#### forbidden_of_odd_types
#: points 0
#: short
# %%
def causal_mask(n, device=None):
    on("Answer", forbidden=[1, None, math.nan])
    return right(n)

#### forbidden_by_the_thousand
#: points 0
#: short
# %%
def causal_mask(n, device=None):
    on("Answer", forbidden=["`\x1b[31m\u202e" * 500] * 90)
    return right(n)

#### invalid_costs
#: points 0 to 3
# %%
def causal_mask(n, device=None):
    on("Answer", operations=-(2**63), largest=2**63 - 1, changed=["n\x1b[31m" * 100] * 1_000)
    return right(n)

#### failure_with_a_lone_surrogate
#: points 0
#: short
# %%
def causal_mask(n, device=None):
    def change(plain):
        plain["response"] = {"message": "Failure", "kind": "raised", "type": "XXXX", "text": "XXXX", "bases": ["ValueError"], "line": 1}
        return msgspec.msgpack.encode(plain).replace(b"XXXX", b"\xed\xa0\x80X")
    forge(change)

#### failure_of_an_odd_line
#: points 0
#: short
# %%
def causal_mask(n, device=None):
    instead({"message": "Failure", "kind": "raised", "type": "E", "text": "x", "bases": ["E"] * 9_000, "line": 2**63 - 1})

#### failure_of_a_negative_line
#: points 0
# %%
def causal_mask(n, device=None):
    instead({"message": "Failure", "kind": "missing", "type": "", "text": "x", "bases": [], "line": -(2**63)})

#### failure_of_a_megabyte
#: points 0
# %%
def causal_mask(n, device=None):
    instead({"message": "Failure", "kind": "odd kind", "type": "T" * 300_000, "text": "=1+1;\n" * 100_000, "bases": []})

#### failure_while_loading
#: points 0
# %%
def causal_mask(n, device=None, _=instead({"message": "Failure", "kind": "raised", "type": "", "text": "\x00", "bases": [], "line": -3, "forbidden": []})):
    return right(n)

#### unknown_message
#: points 0
# %%
def causal_mask(n, device=None):
    instead({"message": "Verdict", "passed": True, "points": 100})

#### duplicate_fields
#: points 0 to 3
# %%
def causal_mask(n, device=None):
    def change(plain):
        header = msgspec.msgpack.encode(plain)
        return b"\x83" + header[1:] + b"\xa6number\xff"
    forge(change)
    return right(n)

#### torch_is_replaced
#: points 0
#: short
# %%
def causal_mask(n, device=None):
    class Everything(torch.Tensor):
        pass
    torch.equal = torch.allclose = torch.Tensor.equal = lambda *a, **k: True
    torch.Tensor.numpy = lambda self: type("N", (), {"tobytes": lambda s: b"\1" * 64})()
    torch.Tensor.is_meta = property(lambda self: True)
    torch.Tensor.shape = property(lambda self: (n, n))
    return torch.zeros(n, n, dtype=torch.bool).as_subclass(Everything)

#### msgspec_is_replaced
#: points 0
#: short
# %%
def causal_mask(n, device=None):
    frames = sys.modules["autograder.protocol.frames"]
    frames._ENCODER = type("E", (), {"encode": staticmethod(lambda message: b"\x80" * 1000)})()
    msgspec.msgpack.Encoder = msgspec.msgpack.encode = None

#### sockets_are_replaced
#: points 0
# %%
def causal_mask(n, device=None):
    import os, socket
    socket.socket.send = lambda self, data: len(data)
    os.write(3, b"\0" * 16)

#### frames_without_end
#: points 0
# %%
def causal_mask(n, device=None):
    import os
    while True:
        os.write(3, struct.pack("<QQ", 1, 0) + b"\xc0")
