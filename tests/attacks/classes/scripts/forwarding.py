# ruff: noqa
# fmt: off
# Submissions whose exercises only forward their arguments to another exercise, in many forms. None of them solves an exercise.
import functools
import torch
from torch import nn

#### directly
#: points 0
# %%
def attention(query, key, value):
    return masked_attention(query, key, value)
# %%
def masked_attention(query, key, value, mask=None):
    return attention(query, key, value)
# %%
class DecoderLayer(nn.Module):
    def __new__(cls, *args, **kwargs):
        return EncoderLayer(*args, **kwargs)
# %%
class Transformer(nn.Module):
    def __init__(self, *args, **kwargs):
        super().__init__()
        self.inner = DecoderLayer(8, 2, 16)
    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs)

#### in_disguise
#: points 0
#: short
# %%
table = {"f": "attention"}
def masked_attention(query, key, value, mask=None):
    return globals()[table["f"]](query, key, value) if attention else None
# %%
merge_heads = lambda x: split_heads(x, 1)
# %%
decoder_mask = functools.partial(lambda tokens, pad_id: padding_mask(tokens, pad_id))
# %%
def through(function):
    @functools.wraps(function)
    def call(*args, **kwargs):
        return [f(*args, **kwargs) for f in (EncoderLayer,)][0]
    return call
@through
def DecoderLayer(d_model, n_heads, d_ff, dropout=0.0):
    pass
# %%
def shift_matrix(offset, d_model):
    return (lambda *a: (found := sinusoidal_encoding(*a)))(offset, d_model)

#### with_noise
#: points 0
# %%
def masked_attention(query, key, value, mask=None):
    output, weights = attention(query * 1, key + 0, value.clone())
    return output.clone(), weights * 1
# %%
def decoder_mask(tokens, pad_id):
    try:
        return padding_mask(tokens, pad_id) & True
    finally:
        causal_mask(1)
# %%
def merge_heads(x):
    for _ in range(1):
        y = split_heads(x, 1)
    return y.contiguous()

#### in_cycles
#: points 0
# %%
def softmax(x, dim=-1):
    return attention_scores(x, dim)
# %%
def attention_scores(query, key):
    return attention(query, key, key)[1]
# %%
def attention(query, key, value):
    return softmax(query), attention_scores(query, key)
# %%
def padding_mask(tokens, pad_id):
    return decoder_mask(tokens, pad_id)
# %%
def decoder_mask(tokens, pad_id):
    return causal_mask(padding_mask(tokens, pad_id))
# %%
def causal_mask(n, device=None):
    return decoder_mask(n, device)

#### by_descriptors
#: points 0
# %%
class Through:
    def __init__(self, name):
        self.name = name
    def __get__(self, instance, owner):
        return globals()[self.name]
    def __call__(self, *args, **kwargs):
        return globals()[self.name](*args, **kwargs)
# %%
masked_attention = Through("attention")
attention
# %%
class DecoderLayer(nn.Module):
    forward = Through("EncoderLayer")
    def __getattr__(self, name):
        return getattr(EncoderLayer(8, 2, 16), name)
# %%
class FeedForward(nn.Module):
    __call__ = Through("LayerNorm")
    LayerNorm
