"""What a name in `not_allowed` stands for, and whether code uses it.

The code is read here; what reading misses is met in the worker, where the operators and functions raise and are counted.
Only what comes from torch is meant: a student's own function may have any name, and comments and strings are no code.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

MENTIONS = (ast.Import, ast.ImportFrom, ast.Assign, ast.keyword, ast.Attribute, ast.Call)


@dataclass(frozen=True)
class Meaning:
    """Names in torch's modules, `aten` operators, and functions to replace."""

    names: tuple[str, ...]
    operators: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()


_NN, _F = "torch.nn", "torch.nn.functional"
# The same functions once more, written in Python for the compiler: they call no operator of that name.
_REFS = "torch._refs"
_TRANSFORMER = tuple(
    f"Transformer{part}" for part in ("", "Encoder", "EncoderLayer", "Decoder", "DecoderLayer")
)

MEANING = {
    "softmax": Meaning(
        (
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
            *("_sparse_softmax", "special_softmax"),
        ),
        (
            *(f"{_F}.softmax", f"{_F}.gumbel_softmax", "torch.masked.softmax"),
            *(f"{_REFS}.softmax", f"{_REFS}.special.softmax", f"{_REFS}.nn.functional.softmax"),
            "torch._decomp.decompositions._softmax",
        ),
    ),
    "log_softmax": Meaning(
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
            "torch._decomp.decompositions._log_softmax",
        ),
    ),
    "softmin": Meaning(
        ("softmin", "Softmin"),
        (),
        (f"{_F}.softmin", "torch.masked.softmin", f"{_REFS}.nn.functional.softmin"),
    ),
    "distributions": Meaning(
        ("distributions",), (), ("torch.distributions.Distribution.__init__",)
    ),
    "scaled_dot_product_attention": Meaning(
        (
            "scaled_dot_product_attention",
            "_scaled_dot_product_attention_math",
            "_scaled_dot_product_flash_attention_for_cpu",
        ),
        (
            "scaled_dot_product_attention",
            "_scaled_dot_product_attention_math",
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_fused_attention_overrideable",
        ),
    ),
    "MultiheadAttention": Meaning(
        ("MultiheadAttention", "_native_multi_head_attention"),
        ("_native_multi_head_attention", "_transformer_encoder_layer_fwd"),
        (f"{_NN}.MultiheadAttention.__init__", f"{_NN}.MultiheadAttention.forward"),
    ),
    "multi_head_attention_forward": Meaning(
        ("multi_head_attention_forward",),
        ("_native_multi_head_attention",),
        (f"{_F}.multi_head_attention_forward",),
    ),
    "flex_attention": Meaning(
        ("flex_attention",), (), ("torch.nn.attention.flex_attention.flex_attention",)
    ),
    "Transformer": Meaning(
        _TRANSFORMER,
        ("_transformer_encoder_layer_fwd",),
        tuple(f"{_NN}.{name}.{part}" for name in _TRANSFORMER for part in ("__init__", "forward")),
    ),
    "generate_square_subsequent_mask": Meaning(
        ("generate_square_subsequent_mask", "_generate_square_subsequent_mask"),
        (),
        (
            f"{_NN}.Transformer.generate_square_subsequent_mask",
            f"{_NN}.modules.transformer._generate_square_subsequent_mask",
        ),
    ),
    "layer_norm": Meaning(
        ("layer_norm", "native_layer_norm", "LayerNorm"),
        ("layer_norm", "native_layer_norm", "native_layer_norm.out"),
        (f"{_REFS}.native_layer_norm", f"{_REFS}.nn.functional.layer_norm"),
    ),
    "rms_norm": Meaning(
        ("rms_norm", "_fused_rms_norm", "RMSNorm"), ("rms_norm", "_fused_rms_norm")
    ),
    "group_norm": Meaning(
        ("group_norm", "native_group_norm", "GroupNorm"), ("group_norm", "native_group_norm")
    ),
    "batch_norm": Meaning(
        ("batch_norm", "native_batch_norm", *(f"BatchNorm{n}d" for n in "123"), "SyncBatchNorm"),
        (
            *("batch_norm", "native_batch_norm", "_native_batch_norm_legit"),
            *("_native_batch_norm_legit.no_stats", "_batch_norm_impl_index"),
        ),
    ),
    "instance_norm": Meaning(
        ("instance_norm", *(f"InstanceNorm{n}d" for n in "123")), ("instance_norm",)
    ),
    "cross_entropy": Meaning(
        ("cross_entropy", "cross_entropy_loss", "CrossEntropyLoss"),
        ("cross_entropy_loss",),
        (f"{_F}.cross_entropy",),
    ),
    "linear_cross_entropy": Meaning(
        ("linear_cross_entropy", "LinearCrossEntropyLoss"), (), (f"{_F}.linear_cross_entropy",)
    ),
    "nll_loss": Meaning(
        ("nll_loss", "nll_loss2d", "nll_loss_nd", "NLLLoss", "NLLLoss2d"),
        ("nll_loss", "nll_loss_nd", "nll_loss_forward", "nll_loss2d", "nll_loss2d_forward"),
    ),
    "kl_div": Meaning(("kl_div", "KLDivLoss"), ("kl_div",), (f"{_F}.kl_div",)),
    "enable_gqa": Meaning(("enable_gqa",)),
}


def operators(not_allowed: Iterable[str]) -> list[str]:
    """The `aten` operators that are to raise."""
    return sorted({name for key in not_allowed for name in MEANING[key].operators})


def attributes(not_allowed: Iterable[str]) -> list[str]:
    """The functions and methods that are to raise, as dotted paths."""
    return sorted({name for key in not_allowed for name in MEANING[key].attributes})


def uses(sources: Sequence[str], not_allowed: Sequence[str]) -> list[str]:
    """Which of torch's names that are not allowed the code mentions, as the code writes them."""
    names = {name for key in not_allowed for name in MEANING[key].names}
    if not names:
        return []
    nodes = [node for source in sources for node in _nodes(source)]
    return list(dict.fromkeys(_Reader(nodes).mentions(nodes, names)))


@lru_cache(maxsize=64)  # the exercises of one notebook share most of their code
def _nodes(source: str) -> tuple[ast.AST, ...]:
    """What may mention a name of torch."""
    return tuple(node for node in ast.walk(ast.parse(source)) if isinstance(node, MENTIONS))


class _Reader:
    """Follows imports and plain aliases, so that it knows which expressions lead into torch."""

    def __init__(self, nodes: Sequence[ast.AST]) -> None:
        self._paths: dict[str, str] = {}
        for node in nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    bound = alias.asname or alias.name.split(".")[0]
                    self._paths[bound] = alias.name if alias.asname else bound
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    self._paths[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        self._paths = {
            name: path for name, path in self._paths.items() if path.split(".")[0] == "torch"
        }
        for node in nodes:
            if isinstance(node, ast.Assign) and len(node.targets) == 1:
                target, path = node.targets[0], self._path(node.value)
                if isinstance(target, ast.Name) and path:
                    self._paths[target.id] = path

    def mentions(self, nodes: Sequence[ast.AST], names: set[str]) -> Iterator[str]:
        """Each expression that leads to one of the names."""
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
                for alias in node.names:
                    parts = f"{node.module}.{alias.name}".split(".")
                    if names & set(parts):
                        yield ".".join(parts)
            elif isinstance(node, ast.Import):
                yield from (
                    a.name
                    for a in node.names
                    if names & set(a.name.split(".")) and a.name.startswith("torch.")
                )
            elif isinstance(node, ast.keyword) and node.arg in names and node.arg == "enable_gqa":
                if not (isinstance(node.value, ast.Constant) and not node.value.value):
                    yield node.arg
            elif isinstance(node, ast.Attribute | ast.Call):
                path = self._path(node)
                if path and names & set(path.split(".")):
                    yield path

    def _path(self, node: ast.AST) -> str:
        """The dotted path of an expression that leads into torch, or an empty text."""
        if isinstance(node, ast.Name):
            return self._paths.get(node.id, "")
        if isinstance(node, ast.Attribute):
            owner = self._path(node.value)
            return f"{owner}.{node.attr}" if owner else ""
        if isinstance(node, ast.Call):
            return self._called(node)
        return ""

    def _called(self, node: ast.Call) -> str:
        """`getattr(torch, "softmax")`, `importlib.import_module("torch.nn")` and `__import__("torch")`."""
        texts = [
            a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)
        ]
        name = (
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        )
        if name == "getattr" and len(node.args) >= 2 and texts:
            owner = self._path(node.args[0])
            return f"{owner}.{texts[0]}" if owner else ""
        if name in ("import_module", "__import__") and texts and texts[0].split(".")[0] == "torch":
            return texts[0]
        return ""
