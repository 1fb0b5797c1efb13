"""Define what each entry of `not_allowed` forbids. A course adds entries with `[not_allowed.NAME]` in `grading.toml`.

Entry points: `BUILT_IN_ENTRIES` and `union`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

Names = Annotated[tuple[str, ...], Meta(description="a list of names, each in quotes")]


class ForbiddenNames(msgspec.Struct, frozen=True):
    """An entry of `not_allowed`: the names, torch operators and functions (by dotted path) that code may not use.

    Operators without a namespace are in `aten`, and `operator(option)` forbids only that option of a composite operator. The
    `names` are forbidden in Python's builtins, in `LIBRARIES` and in the libraries that contain the `attributes`.
    """

    names: Names
    operators: Names = ()
    attributes: Names = ()

    @property
    def libraries(self) -> frozenset[str]:
        """Return the libraries in which these names are forbidden."""
        return LIBRARIES | {path.partition(".")[0] for path in self.attributes}

    @property
    def options(self) -> frozenset[str]:
        """Return the forbidden options of composite operators."""
        found = (name.partition("(")[2] for name in self.operators)
        return frozenset(option.rstrip(")") for option in found if option)


# Libraries that provide the functions in `BUILT_IN_ENTRIES` under the same names.
LIBRARIES = frozenset(
    {"torch", "scipy", "sklearn", "jax", "flax", "tensorflow", "keras", "transformers"}
)


_NN, _F = "torch.nn", "torch.nn.functional"
# These modules contain Python implementations for the compiler. They do not call the operators with the same names.
_REFS, _DECOMPOSITIONS = "torch._refs", "torch._decomp.decompositions"
_TRANSFORMER = tuple(
    f"Transformer{part}" for part in ("", "Encoder", "EncoderLayer", "Decoder", "DecoderLayer")
)

# Forbid attention along with softmax, because attention returns the softmax if the values are the identity matrix.
_ATTENTION = (
    "scaled_dot_product_attention",
    "_scaled_dot_product_attention_math",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
    "_flash_attention_forward",
    "_efficient_attention_forward",
    "_triton_scaled_dot_attention",
)
_FLEX_ATTENTION = (
    "torch.nn.attention.flex_attention.flex_attention",
    "torch._higher_order_ops.flex_attention.math_attention",
)
_FURTHER_ATTENTION = (
    "torch.nn.attention.varlen.varlen_attn",
    "torch.onnx.ops.attention",
    # The operator `onnx::Attention` and the function behind it both call this helper.
    "torch.onnx.ops._impl._get_scale_factor",
)

BUILT_IN_ENTRIES = {
    "softmax": ForbiddenNames(
        (
            *_ATTENTION,
            "flex_attention",
            "varlen_attn",
            "softmax",
            "_softmax",
            "_safe_softmax",
            "_masked_softmax",
            "gumbel_softmax",
            "Softmax",
            "Softmax2d",
        ),
        (
            *("softmax.int", "_softmax", "_softmax.out", "_safe_softmax", "_masked_softmax"),
            *("_sparse_softmax", "special_softmax", "quantized::softmax"),
            *_ATTENTION,
        ),
        (
            *(f"{_F}.softmax", f"{_F}.gumbel_softmax", "torch.masked.softmax"),
            *(f"{_REFS}.softmax", f"{_REFS}.special.softmax", f"{_REFS}.nn.functional.softmax"),
            f"{_DECOMPOSITIONS}._softmax",
            *("scipy.special.softmax", "scipy.special._logsumexp.softmax"),
            *("sklearn.utils.extmath.softmax", "sklearn.neural_network._base.inplace_softmax"),
            *(*_FLEX_ATTENTION, *_FURTHER_ATTENTION),
        ),
    ),
    "log_softmax": ForbiddenNames(
        ("log_softmax", "_log_softmax", "LogSoftmax", "AdaptiveLogSoftmaxWithLoss"),
        (
            "log_softmax.int",
            "_log_softmax",
            "_log_softmax.out",
            "_sparse_log_softmax",
            "special_log_softmax",
        ),
        (
            *(f"{_F}.log_softmax", "torch.masked.log_softmax", f"{_REFS}.log_softmax"),
            *(f"{_REFS}.special.log_softmax", f"{_REFS}.nn.functional.log_softmax"),
            f"{_DECOMPOSITIONS}._log_softmax",
            *("scipy.special.log_softmax", "scipy.special._logsumexp.log_softmax"),
        ),
    ),
    "softmin": ForbiddenNames(
        ("softmin", "Softmin"),
        (),
        (f"{_F}.softmin", "torch.masked.softmin", f"{_REFS}.nn.functional.softmin"),
    ),
    "distributions": ForbiddenNames(
        ("distributions",),
        (),
        (
            "torch.distributions.Distribution.__init__",
            "torch.distributions.transforms.SoftmaxTransform._call",
        ),
    ),
    "scaled_dot_product_attention": ForbiddenNames(_ATTENTION, _ATTENTION, _FURTHER_ATTENTION),
    "MultiheadAttention": ForbiddenNames(
        ("MultiheadAttention", "multi_head_attention_forward", "_native_multi_head_attention"),
        ("_native_multi_head_attention", "_transformer_encoder_layer_fwd"),
        (
            *(f"{_NN}.MultiheadAttention.__init__", f"{_NN}.MultiheadAttention.forward"),
            f"{_F}.multi_head_attention_forward",
        ),
    ),
    "multi_head_attention_forward": ForbiddenNames(
        ("multi_head_attention_forward",),
        ("_native_multi_head_attention",),
        (f"{_F}.multi_head_attention_forward",),
    ),
    "flex_attention": ForbiddenNames(("flex_attention",), (), _FLEX_ATTENTION),
    "Transformer": ForbiddenNames(
        _TRANSFORMER,
        ("_transformer_encoder_layer_fwd",),
        tuple(f"{_NN}.{name}.{part}" for name in _TRANSFORMER for part in ("__init__", "forward")),
    ),
    "generate_square_subsequent_mask": ForbiddenNames(
        ("generate_square_subsequent_mask", "_generate_square_subsequent_mask"),
        (),
        (
            f"{_NN}.Transformer.generate_square_subsequent_mask",
            f"{_NN}.modules.transformer._generate_square_subsequent_mask",
        ),
    ),
    "layer_norm": ForbiddenNames(
        ("layer_norm", "native_layer_norm", "LayerNorm"),
        ("layer_norm", "native_layer_norm", "native_layer_norm.out"),
        (
            *(f"{_REFS}.native_layer_norm", f"{_REFS}.nn.functional.layer_norm"),
            f"{_REFS}._normalize",
        ),
    ),
    "rms_norm": ForbiddenNames(
        ("rms_norm", "_fused_rms_norm", "RMSNorm"), ("rms_norm", "_fused_rms_norm")
    ),
    "group_norm": ForbiddenNames(
        ("group_norm", "native_group_norm", "GroupNorm"), ("group_norm", "native_group_norm")
    ),
    "batch_norm": ForbiddenNames(
        ("batch_norm", "native_batch_norm", *(f"BatchNorm{n}d" for n in "123"), "SyncBatchNorm"),
        (
            *("batch_norm", "native_batch_norm", "_batch_norm_impl_index"),
            *("_native_batch_norm_legit", "_native_batch_norm_legit.no_stats"),
            *("_native_batch_norm_legit_functional", "_native_batch_norm_legit_no_training"),
            *("_batch_norm_with_update", "_batch_norm_with_update_functional"),
            "_batch_norm_no_update",
        ),
        (f"{_DECOMPOSITIONS}.native_batch_norm_helper",),
    ),
    "instance_norm": ForbiddenNames(
        ("instance_norm", *(f"InstanceNorm{n}d" for n in "123")), ("instance_norm",)
    ),
    "cross_entropy": ForbiddenNames(
        ("cross_entropy", "cross_entropy_loss", "CrossEntropyLoss"),
        ("cross_entropy_loss",),
        (f"{_F}.cross_entropy",),
    ),
    "linear_cross_entropy": ForbiddenNames(
        ("linear_cross_entropy", "LinearCrossEntropyLoss"), (), (f"{_F}.linear_cross_entropy",)
    ),
    "nll_loss": ForbiddenNames(
        ("nll_loss", "nll_loss2d", "nll_loss_nd", "NLLLoss", "NLLLoss2d"),
        ("nll_loss", "nll_loss_nd", "nll_loss_forward", "nll_loss2d", "nll_loss2d_forward"),
        (
            f"{_DECOMPOSITIONS}._nll_loss_forward",
            *(f"{_REFS}.nn.functional.nll_loss", f"{_REFS}.nn.functional._nll_loss_nd"),
        ),
    ),
    "kl_div": ForbiddenNames(("kl_div", "KLDivLoss"), ("kl_div",), (f"{_F}.kl_div",)),
    "enable_gqa": ForbiddenNames(
        ("enable_gqa",),
        tuple(f"{name}(enable_gqa)" for name in _ATTENTION[:2]),
    ),
}


def union(not_allowed: Iterable[str], own_entries: Mapping[str, ForbiddenNames]) -> ForbiddenNames:
    """Return everything that at least one of the entries forbids, in sorted order.

    An entry may be in `BUILT_IN_ENTRIES`, in the course's own entries, or in both.
    """
    tables = (BUILT_IN_ENTRIES, own_entries)
    found = [table[name] for name in not_allowed for table in tables if name in table]
    return ForbiddenNames(
        tuple(sorted({name for entry in found for name in entry.names})),
        tuple(sorted({name for entry in found for name in entry.operators})),
        tuple(sorted({name for entry in found for name in entry.attributes})),
    )
