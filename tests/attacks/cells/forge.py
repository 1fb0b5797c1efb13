# ruff: noqa
# fmt: off
# Forged and invalid answers. They earn nothing and have no other effect.

# %% two answers to one request
#: stopped by wire
#: says a response to a different request
def causal_mask(n, device=None):
    respond(tensor_of(shape=(0,), strides=(1,)))
    return right(n, device)

# %% an answer to a later request
#: stopped by wire
#: says a response to a different request
def causal_mask(n, device=None):
    respond(tensor_of(shape=(0,), strides=(1,)), number=asked() + 1)

# %% bytes that are not a message
#: stopped by wire
#: says invalid message
def causal_mask(n, device=None):
    send(b"\xff" * 100)

# %% a message of 2⁶³ bytes
#: stopped by wire
#: says too large
def causal_mask(n, device=None):
    send(struct.pack("<QQ", 1 << 63, 0))

# %% a payload that never arrives
#: stopped by deadline
#: says no answer within
#: seconds 0.1
def causal_mask(n, device=None):
    send(struct.pack("<QQ", 10, 10 << 20))
    threading.Event().wait()

# %% single bytes at intervals
#: stopped by deadline
#: says no answer within
#: seconds 0.1
def causal_mask(n, device=None):
    send(struct.pack("<QQ", 1000, 0))
    while True:
        time.sleep(0.01)
        send(b"\x90")

# %% a value nested a million levels deep
#: stopped by wire
#: says invalid message
def causal_mask(n, device=None):
    header = b"\x82\xa6number\x01\xa8response" + b"\x91" * 1_000_000
    send(struct.pack("<QQ", len(header), 0) + header)

# %% an answer of an unknown type
#: stopped by wire
#: says invalid message
def causal_mask(n, device=None):
    import msgspec
    header = msgspec.msgpack.encode({"number": asked(), "response": {"message": "Verdict", "passed": True}})
    send(struct.pack("<QQ", len(header), 0) + header)

# %% a shape without data
#: stopped by wire
#: says could not decode
def causal_mask(n, device=None):
    respond(tensor_of(shape=(n, n), strides=(n, 1)), payload=b"\1")

# %% terabytes through zero strides
#: stopped by wire
#: says too large
def causal_mask(n, device=None):
    respond(tensor_of(shape=(1 << 20, 1 << 20), strides=(0, 0)), payload=b"\1")

# %% a shape whose product overflows
#: stopped by wire
#: says too large
def causal_mask(n, device=None):
    respond(tensor_of(shape=(1 << 32, 1 << 32, 1 << 32), strides=(0, 0, 0)), payload=b"\1")

# %% strides outside the message
#: stopped by wire
#: says could not decode
def causal_mask(n, device=None):
    respond(tensor_of(shape=(2, 2), strides=(1, -1 << 40)), payload=bytes(64))

# %% a negative size
#: stopped by wire
#: says an invalid shape
def causal_mask(n, device=None):
    respond(tensor_of(shape=(-1, n)), payload=bytes(64))

# %% an invalid dtype
#: stopped by wire
#: says could not decode
def causal_mask(n, device=None):
    respond(tensor_of(dtype="object"), payload=bytes(64))

# %% a tensor with a negative offset
#: stopped by wire
#: says could not decode
def causal_mask(n, device=None):
    respond(tensor_of(start=-64), payload=bytes(64))

# %% a missing tensor
#: stopped by wire
#: says a tensor that was not sent
def causal_mask(n, device=None):
    m = messages()
    respond(m.Answer(m.Data(m.TensorAt(7), [])))

# %% twenty thousand tensors
#: stopped by wire
#: says too many
def causal_mask(n, device=None):
    m = messages()
    respond(m.Answer(m.Data(None, [m.TensorMeta("bool", [], [], 0, False)] * 20_000)))

# %% a long key
#: stopped by wire
#: says a key that is too long
def causal_mask(n, device=None):
    m = messages()
    respond(m.Answer(m.Data(m.Pairs([("k" * 900_000, m.Items([None] * 10_000))]), [])))

# %% a tensor that nothing refers to
#: stopped by wire
#: says a tensor that its value does not refer to
def causal_mask(n, device=None):
    m = messages()
    respond(m.Answer(m.Data(None, [m.TensorMeta("bool", [0], [1], 0, False)])))

# %% a model as an answer
#: stopped by wire
#: says could not decode
def causal_mask(n, device=None):
    m = messages()
    respond(m.Answer(m.Data(m.Model(1, ["forward"], [], True), [])))

# %% a question to a missing model
#: stopped by wire
#: says did not send
def causal_mask(n, device=None):
    m = messages()
    respond(m.Ask(140_000_000_000_000, "__class__", m.Data(m.Items([]), []), True, True))

# %% a question about missing gradients
#: stopped by wire
#: says do not match
def causal_mask(n, device=None):
    m = messages()
    respond(m.AskBackward(1, m.Data(m.Items([]), [])))

# %% endless progress reports
#: stopped by wire
#: says an unexpected progress report
def causal_mask(n, device=None):
    while True:
        respond(messages().Running(1))

# %% endless answers
#: stopped by wire
#: says a response to a different request
def causal_mask(n, device=None):
    number = asked()
    while True:
        respond(tensor_of(shape=(0,), strides=(1,)), number)

# %% a handle to a missing module
#: stopped by wire
#: says it is an nn.Module
#: seconds 0.1
def causal_mask(n, device=None):
    m = messages()
    respond(m.Answer(m.Data(m.Handle(99, "Tensor"), []), ["x"] * 100, [(1, True, True)] * 100))
    threading.Event().wait()

# %% a failure that imitates a failed test
#: stopped by wire
#: says raised AssertionError
def causal_mask(n, device=None):
    raise AssertionError("")

# %% a closed wire
#: stopped by wire
#: says ended its Python process
def causal_mask(n, device=None):
    os.close(3)

# %% answers from a thread
#: stopped by wire
#: says a response to a different request
def causal_mask(n, device=None):
    def write():
        for number in range(200):
            respond(tensor_of(shape=(0,), strides=(1,)), number)
    threading.Thread(target=write).start()

# %% descriptors sent to the grader
#: stopped by seccomp, wire
#: says Operation not permitted
def causal_mask(n, device=None):
    null = os.open("/dev/null", os.O_RDONLY)
    wire = socket.socket(fileno=os.dup(3))
    socket.send_fds(wire, [b"", b""], [null] * 8)

# %% exit code 0
#: stopped by wire
#: says ended its Python process
def causal_mask(n, device=None):
    os._exit(0)

# %% SystemExit
#: stopped by wire
#: says raised SystemExit
def causal_mask(n, device=None):
    sys.exit(0)

# %% printed test results
#: stopped by wire
#: says should be a tensor
def causal_mask(n, device=None):
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, open("/dev/null", "w")):
        print("test_masking.py::TestCausalMask PASSED\n1 passed in 0.1s\n{\"score\": 100}", file=stream)

# %% a tensor that equals everything
#: stopped by wire
#: says should be True
def causal_mask(n, device=None):
    class Yes(torch.Tensor):
        def __bool__(self): return True
        def __getitem__(self, index): return Yes(torch.ones(()))
        def __invert__(self): return Yes(torch.ones(()))
        def bool(self): return self
        def detach(self): return self
        def __ne__(self, other): return torch.zeros(())
        def __eq__(self, other): return torch.ones(())
    return torch.zeros(n, n, dtype=torch.bool).as_subclass(Yes)

# %% an object that imitates a tensor
#: stopped by wire
#: says raised AttributeError
def causal_mask(n, device=None):
    class Liar:
        __class__ = property(lambda self: torch.Tensor)
        shape = (n, n)
        dtype = torch.bool
        __eq__ = __ne__ = __bool__ = lambda self, *other: True
    return Liar()

# %% an object with a malicious __reduce__
#: stopped by wire
#: says should be a tensor
def causal_mask(n, device=None):
    class Rebuilt:
        def __reduce__(self):
            return os.system, (f"touch {T['root']}/rebuilt",)
    return Rebuilt()

# %% strings and integers that equal everything
#: stopped by wire
#: says should be a tensor
def causal_mask(n, device=None):
    class Text(str):
        __eq__ = lambda self, other: True
        __hash__ = str.__hash__
    class Number(int):
        __eq__ = lambda self, other: True
        __hash__ = int.__hash__
    return {Text("a"): Number(3), "b": Text("x" * 100)}

# %% NaN everywhere
#: stopped by wire
#: says should be finite
def causal_mask(n, device=None):
    return torch.full((n, n), float("nan"))

# %% a meta tensor
#: stopped by wire
#: says meta
def causal_mask(n, device=None):
    return torch.ones(n, n, dtype=torch.bool, device="meta")
