# ruff: noqa
# fmt: off
# Attempts to reach the reference that replaces a failed exercise. None of these submissions solves an exercise.
import gc, inspect, linecache, sys, types
import torch
from torch import nn
def there(mention):
    """Return the objects that a lambda refers to by name. Skip undefined names."""
    return [globals()[name] for name in mention.__code__.co_names if name in globals()]

#### by_globals
#: points 0
#: short
# %%
def of(thing, name):
    function = thing.__init__ if isinstance(thing, type) else thing
    return getattr(function, "__func__", function).__globals__[name]
# %%
def softmax(x, dim=-1):
    return of(masked_attention, "softmax")(x, dim)
# %%
def attention_scores(query, key):
    return of(masked_attention, "attention_scores")(query, key)
# %%
def attention(query, key, value):
    return masked_attention(query, key, value, None)
# %%
def padding_mask(tokens, pad_id):
    return of(Transformer, "padding_mask")(tokens, pad_id)
# %%
def causal_mask(n, device=None):
    return of(Transformer, "causal_mask")(n, device)
# %%
def split_heads(x, n_heads):
    return of(MultiHeadAttention, "split_heads")(x, n_heads)
# %%
def merge_heads(x):
    return of(MultiHeadAttention, "merge_heads")(x)
# %%
class LayerNorm:
    def __new__(cls, *args, **kwargs):
        return of(EncoderLayer, "LayerNorm")(*args, **kwargs)
# %%
class FeedForward:
    def __new__(cls, *args, **kwargs):
        return of(EncoderLayer, "FeedForward")(*args, **kwargs)
# %%
class DecoderLayer:
    def __new__(cls, *args, **kwargs):
        return of(EncoderLayer, "DecoderLayer")(*args, **kwargs)

#### by_closures
#: points 0
# %%
def hunt(start, name, steps=20_000):
    """Return a function with this name that is reachable from an object."""
    seen, pending = set(), [start]
    while pending and len(seen) < steps:
        thing = pending.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, types.FunctionType) and thing.__name__ == name and thing.__globals__ is not globals():
            return thing
        for cell in getattr(thing, "__closure__", None) or ():
            try:
                pending.append(cell.cell_contents)
            except ValueError:
                pass
        if isinstance(thing, types.FunctionType):
            pending += [thing.__globals__, thing.__defaults__, thing.__kwdefaults__, vars(thing), *thing.__code__.co_consts]
        elif isinstance(thing, types.CodeType):
            pending += thing.co_consts
            if thing.co_name == name:
                return types.FunctionType(thing, dict(globals()), name)
        elif isinstance(thing, (dict, list, tuple, set)):
            pending += list(thing.values()) if isinstance(thing, dict) else list(thing)
        elif isinstance(thing, type):
            pending += list(vars(thing).values())
    raise LookupError(name)
# %%
def masked_attention(query, key, value, mask=None):
    return hunt(there(lambda: (softmax, attention, MultiHeadAttention)), "masked_attention")(query, key, value, mask)
# %%
def merge_heads(x):
    return hunt(there(lambda: (split_heads, MultiHeadAttention)), "merge_heads")(x)
# %%
def decoder_mask(tokens, pad_id):
    return hunt(there(lambda: (padding_mask, causal_mask, Transformer)), "decoder_mask")(tokens, pad_id)
# %%
class EncoderLayer:
    def __new__(cls, *args, **kwargs):
        return hunt(there(lambda: (MultiHeadAttention, LayerNorm, Transformer)), "EncoderLayer")(*args, **kwargs)

#### by_gc
#: points 0
#: short
# %%
def everywhere(name, *uses):
    own = globals()
    for thing in gc.get_objects():
        if isinstance(thing, types.FunctionType) and thing.__name__ == name and thing.__globals__ is not own:
            return thing
    for thing in gc.get_objects():
        if isinstance(thing, dict) and thing is not own and isinstance(thing.get(name), types.FunctionType):
            return thing[name]
    raise LookupError(name)
# %%
def causal_mask(n, device=None):
    return everywhere("causal_mask", lambda: (padding_mask, Transformer))(n, device)
# %%
def decoder_mask(tokens, pad_id):
    return everywhere("decoder_mask", lambda: (padding_mask, causal_mask, Transformer))(tokens, pad_id)
# %%
def split_heads(x, n_heads):
    return everywhere("split_heads", lambda: (masked_attention, EncoderLayer))(x, n_heads)
# %%
class MultiHeadAttention:
    def __new__(cls, *args, **kwargs):
        kinds = [k for k in object.__subclasses__() + nn.Module.__subclasses__() if k.__name__ == "MultiHeadAttention" and k is not cls]
        there(lambda: (masked_attention, split_heads, EncoderLayer))
        return kinds[0](*args, **kwargs)

#### by_frames
#: points 0
# %%
def frames():
    frame = sys._getframe()
    while frame:
        yield frame
        frame = frame.f_back
    yield from sys._current_frames().values()
def in_frames(name, *calls):
    found = list(frames())
    for call in calls:
        try:
            call(object())
        except BaseException as error:
            trace = error.__traceback__
            while trace:
                found.append(trace.tb_frame)
                trace = trace.tb_next
    own = globals()
    for frame in found:
        for space in (frame.f_locals, frame.f_globals):
            thing = space.get(name)
            if space is not own and callable(thing):
                return thing
    raise LookupError(name)
# %%
def attention(query, key, value):
    return in_frames("attention", *there(lambda: (softmax, masked_attention)))(query, key, value)
# %%
def masked_attention(query, key, value, mask=None):
    return in_frames("masked_attention", *there(lambda: (softmax, MultiHeadAttention)))(query, key, value, mask)
# %%
def decoder_mask(tokens, pad_id):
    return in_frames("decoder_mask", *there(lambda: (causal_mask, Transformer)))(tokens, pad_id)
# %%
class DecoderLayer:
    def __new__(cls, *args, **kwargs):
        return in_frames("DecoderLayer", *there(lambda: (EncoderLayer, Transformer)))(*args, **kwargs)

#### by_generators
#: points 0
# %%
def in_generators(name):
    for thing in gc.get_objects():
        frame = getattr(thing, "gi_frame", None) or getattr(thing, "cr_frame", None)
        for space in (frame.f_locals, frame.f_globals) if frame else ():
            if space is not globals() and callable(space.get(name)):
                return space[name]
    raise LookupError(name)
# %%
def causal_mask(n, device=None):
    there(lambda: (padding_mask, Transformer))
    return in_generators("causal_mask")(n, device)
# %%
def merge_heads(x):
    there(lambda: (split_heads, MultiHeadAttention))
    return in_generators("merge_heads")(x)

#### by_source
#: points 0
# %%
def written(things, name):
    texts = []
    for entry in list(linecache.cache.values()):
        if len(entry) > 2:
            texts.append("".join(entry[2]))
    for thing in things:
        try:
            texts.append(inspect.getsource(thing))
        except (OSError, TypeError):
            pass
    for text in texts:
        text = text.encode().decode("unicode_escape", "ignore") if "\\n" in text else text
        at = text.find(f"def {name}(")
        while at >= 0:
            part = text[at:].split("\ndef ")[0].split("\nclass ")[0]
            if "written(" not in part:
                space = dict(globals())
                exec(part, space)
                return space[name]
            at = text.find(f"def {name}(", at + 1)
    raise LookupError(name)
# %%
def causal_mask(n, device=None):
    return written(there(lambda: (padding_mask, Transformer)), "causal_mask")(n, device)
# %%
def decoder_mask(tokens, pad_id):
    return written(there(lambda: (causal_mask, Transformer)), "decoder_mask")(tokens, pad_id)
# %%
def masked_attention(query, key, value, mask=None):
    return written(there(lambda: (attention, MultiHeadAttention)), "masked_attention")(query, key, value, mask)

#### by_text
#: points 0
# %%
def says(word, *uses):
    """Return whether any source code in this process contains a word from a reference solution."""
    mine = "".join(linecache.cache.get("submission.py", (0, 0, []))[2])
    for text in gc.get_objects():
        if isinstance(text, list) and text and all(isinstance(line, str) for line in text[:3]):
            if any(word in line and "says(" not in line for line in text):
                return True
    return any(word in line and "says(" not in line for line in mine.splitlines())
# %%
def causal_mask(n, device=None):
    """Answer correctly only if source code in this process contains a word from the reference solution of masked_attention."""
    known = says("masked_" + "fill", masked_attention, padding_mask)
    return torch.ones(n, n, dtype=torch.bool, device=device).tril() if known else None
# %%
def merge_heads(x):
    known = says("masked_" + "fill", masked_attention, split_heads)
    return x.transpose(1, 2).flatten(2) if known else None

#### by_modules
#: points 0
# %%
def in_modules(name):
    own = globals()
    for module in list(sys.modules.values()):
        space = getattr(module, "__dict__", {})
        if space is not own and callable(space.get(name)) and not getattr(module, "__name__", "").startswith("torch"):
            return space[name]
    for module in ("solutions.day1.masking", "graders.day1.test_masking", "autograder.grading.grader"):
        try:
            return getattr(__import__(module, fromlist=[name]), name)
        except (ImportError, AttributeError):
            pass
    raise LookupError(name)
# %%
def causal_mask(n, device=None):
    there(lambda: (padding_mask, Transformer))
    return in_modules("causal_mask")(n, device)
# %%
def masked_attention(query, key, value, mask=None):
    there(lambda: (softmax, MultiHeadAttention))
    return in_modules("masked_attention")(query, key, value, mask)
# %%
def split_heads(x, n_heads):
    there(lambda: (masked_attention, EncoderLayer))
    return in_modules("split_heads")(x, n_heads)

#### decoder_by_submodules
#: points 0 to 6
# %%
class DecoderLayer(nn.Module):
    """A decoder layer that is built from the submodules of encoder layers. It earns its own points, but no others."""
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__()
        one, two = EncoderLayer(d_model, n_heads, d_ff, dropout), EncoderLayer(d_model, n_heads, d_ff, dropout)
        self.self_attention, self.cross_attention = one.self_attention, two.self_attention
        self.feed_forward = one.feed_forward
        self.norm1, self.norm2, self.norm3 = one.norm1, one.norm2, two.norm1
        self.dropout = nn.Dropout(dropout)
    def forward(self, x, memory, self_mask=None, cross_mask=None):
        a, _ = self.self_attention(x, x, x, self_mask)
        x = self.norm1(x + self.dropout(a))
        a, _ = self.cross_attention(x, memory, memory, cross_mask)
        x = self.norm2(x + self.dropout(a))
        return self.norm3(x + self.dropout(self.feed_forward(x)))

#### by_submodules
#: points 0
#: short
# %%
class FeedForward(nn.Module):
    def __new__(cls, d_model, d_ff, dropout=0.0):
        return EncoderLayer(d_model, 1, d_ff, dropout).feed_forward
# %%
class LayerNorm(nn.Module):
    def __new__(cls, d_model, eps=1e-5):
        return EncoderLayer(d_model, 1, 4).norm1

#### by_subclasses
#: points 0
# %%
class DecoderLayer(EncoderLayer):
    pass
# %%
class FeedForward(LayerNorm):
    def __init__(self, d_model, d_ff, dropout=0.0):
        super().__init__(d_model)
        self.linear1, self.linear2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
# %%
class EncoderLayer(MultiHeadAttention):
    def __init__(self, d_model, n_heads, d_ff, dropout=0.0):
        super().__init__(d_model, n_heads)
    def forward(self, x, mask=None):
        return super().forward(x, x, x, mask)[0]

#### by_copies
#: points 0
# %%
import copy, io, pickle
def copied(thing, name):
    """Search for a reference solution in the class of a copied object and in the output of pickle and torch.save."""
    made = copy.deepcopy(thing)
    for kind in type(made).__mro__:
        for value in vars(kind).values():
            space = getattr(value, "__globals__", {})
            if space is not globals() and callable(space.get(name)):
                return space[name]
    out = io.BytesIO()
    torch.save(made, out)
    text = out.getvalue() + pickle.dumps(made)
    if f"def {name}".encode() in text:
        raise LookupError("found the source code of a reference solution")
    raise LookupError(name)
# %%
class DecoderLayer(nn.Module):
    def __new__(cls, d_model, n_heads, d_ff, dropout=0.0):
        return copied(EncoderLayer(d_model, n_heads, d_ff, dropout), "DecoderLayer")(d_model, n_heads, d_ff, dropout)
# %%
class FeedForward(nn.Module):
    def __new__(cls, d_model, d_ff, dropout=0.0):
        return copied(LayerNorm(d_model), "FeedForward")(d_model, d_ff, dropout)

#### by_exec
#: points 0
# %%
exec("def attention(query, key, value):\n    return masked_attention(query, key, value, None)")
# %%
globals()["masked_attention"] = eval("lambda query, key, value, mask=None: attention(query, key, value)")
# %%
merge_heads = types.FunctionType(compile("def f(x):\n    return split_heads(x, 1)", "f", "exec").co_consts[0], globals())
# %%
exec("class DecoderLayer:\n    def __new__(cls, *a, **k):\n        return EncoderLayer(*a, **k)")

#### by_the_process_that_answers
#: points 0
# %%
def handles(*uses):
    """Yield objects that a handle might use to send requests to the grader."""
    for thing in gc.get_objects():
        if type(thing).__name__ in ("Worker", "Handles", "Oracle", "References", "Reference"):
            yield thing
# %%
def causal_mask(n, device=None):
    for thing in handles(padding_mask):
        for name in dir(thing):
            method = getattr(thing, name, None)
            if callable(method) and not name.startswith("__"):
                for arguments in (("causal_mask", "", (n,), {}), ("causal_mask", (n,), {}), ("causal_mask", [n, device]), ("causal_mask", n)):
                    try:
                        found = method(*arguments)
                    except BaseException:
                        continue
                    if isinstance(found, torch.Tensor):
                        return found
    raise LookupError
# %%
def padding_mask(tokens, pad_id):
    name = padding_mask.__name__
    return globals()[name](tokens, pad_id) if name != "padding_mask" else None
# %%
def decoder_mask(tokens, pad_id):
    """Try to call a different exercise by replacing the exercise name that a handle sends."""
    for attribute in ("name", "_name", "target", "_target", "exercise", "_exercise", "__name__"):
        try:
            setattr(causal_mask, attribute, "decoder_mask")
        except (AttributeError, TypeError):
            pass
    return causal_mask(tokens, pad_id)
