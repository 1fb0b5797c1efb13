"""What a name in `not_allowed` stands for, and whether code uses it.

The code is read here; what reading misses is met in the worker, where the operators and functions raise and are counted.
Only what comes from torch, or from a library that has the same functions, is meant: a student's own function may have any
name, and comments and strings are no code.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from autograder.magics import collector_paused
from autograder.scopes import walk

# Libraries that have the same functions under the same names.
LIBRARIES = frozenset(
    {"torch", "scipy", "sklearn", "jax", "flax", "tensorflow", "keras", "transformers"}
)
MAX_SHOWN = 20  # names of one exercise
MAX_PARTS = 200  # of a path
MAX_ROOT = 10_000  # characters


@dataclass(frozen=True)
class Meaning:
    """Names in torch's modules, operators (`aten`'s where no namespace is given), and functions to replace."""

    names: tuple[str, ...]
    operators: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()


_NN, _F = "torch.nn", "torch.nn.functional"
# The same functions once more, written in Python for the compiler: they call no operator of that name.
_REFS = "torch._refs"
_TRANSFORMER = tuple(
    f"Transformer{part}" for part in ("", "Encoder", "EncoderLayer", "Decoder", "DecoderLayer")
)

# Attention whose values are the identity is the softmax.
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
_FLEX = (
    "torch.nn.attention.flex_attention.flex_attention",
    "torch.nn.attention.varlen.varlen_attn",
)

MEANING = {
    "softmax": Meaning(
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
            "torch._decomp.decompositions._softmax",
            *("scipy.special.softmax", "scipy.special._logsumexp.softmax"),
            *("sklearn.utils.extmath.softmax", *_FLEX),
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
            *("scipy.special.log_softmax", "scipy.special._logsumexp.log_softmax"),
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
    "scaled_dot_product_attention": Meaning(_ATTENTION, _ATTENTION, _FLEX[1:]),
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
    "flex_attention": Meaning(("flex_attention",), (), _FLEX[:1]),
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
    facts = [_facts(source) for source in sources]
    found = dict.fromkeys(path for path in _mentions(facts, _paths(facts)) if _parts(path) & names)
    return list(found)[:MAX_SHOWN]


@dataclass(frozen=True, slots=True)
class Chain:
    """`root.a.b`, or `getattr(root.a, "b")`; the root is a name, or a module if it is imported by a call."""

    root: str
    is_module: bool
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a statement imports, gives another name, and mentions."""

    imports: tuple[tuple[str, str], ...] = ()  # name bound, path
    aliases: tuple[tuple[str, Chain], ...] = ()
    mentions: tuple[str | Chain, ...] = ()  # paths of imports, expressions, and `enable_gqa`


NOTHING = _Facts()
ALL_NAMES = frozenset(name for meaning in MEANING.values() for name in meaning.names)


@lru_cache(maxsize=20_000)  # the exercises of one notebook share most of their code
def _facts(source: str) -> _Facts:
    imports: list[tuple[str, str]] = []
    aliases: list[tuple[str, Chain]] = []
    mentions: list[str | Chain] = []
    inside: set[int] = set()  # nodes of chains that were met at their end
    with collector_paused():
        for node in walk(ast.parse(source).body):
            if isinstance(node, ast.Import | ast.ImportFrom):
                found = [(b, path) for b, path in _imported(node) if _library(path)]
                imports += found
                mentions += [path for _, path in _imported(node, whole=True) if _library(path)]
            elif isinstance(node, ast.Assign) and len(node.targets) == 1:
                target, chain = node.targets[0], _chain(node.value, set())
                if isinstance(target, ast.Name) and chain:
                    aliases.append((target.id, chain))
            elif isinstance(node, ast.keyword) and node.arg == "enable_gqa":
                if not (isinstance(node.value, ast.Constant) and not node.value.value):
                    mentions.append(node.arg)
            elif isinstance(node, ast.Attribute | ast.Call) and id(node) not in inside:
                chain = _chain(node, inside)
                if chain and (chain.is_module or not ALL_NAMES.isdisjoint(chain.names)):
                    mentions.append(chain)
    if not (imports or aliases or mentions):
        return NOTHING
    return _Facts(*(tuple(dict.fromkeys(each)) for each in (imports, aliases, mentions)))  # type: ignore[arg-type]


def _imported(node: ast.Import | ast.ImportFrom, whole: bool = False) -> Iterator[tuple[str, str]]:
    """The names that an import binds and what they stand for; with `whole`, all of each path."""
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            yield alias.asname or alias.name, f"{node.module}.{alias.name}"
        elif alias.asname or whole:
            yield alias.asname or "", alias.name
        else:
            first = alias.name.partition(".")[0]
            yield first, first


def _library(path: str) -> bool:
    return path.partition(".")[0] in LIBRARIES


def _parts(path: str) -> set[str]:
    return set(path.split("."))


def _paths(facts: Sequence[_Facts]) -> dict[str, str]:
    """What names stand for that lead into a library, by imports and plain aliases."""
    paths = {name: path for each in facts for name, path in each.imports}
    for each in facts:
        for name, chain in each.aliases:
            if path := _path(chain, paths):
                paths[name] = path
    return paths


def _mentions(facts: Sequence[_Facts], paths: Mapping[str, str]) -> Iterator[str]:
    """The paths of all expressions that lead into a library."""
    for each in facts:
        for mention in each.mentions:
            if path := _path(mention, paths) if isinstance(mention, Chain) else mention:
                yield path


def _path(chain: Chain, paths: Mapping[str, str]) -> str:
    root = chain.root if chain.is_module else paths.get(chain.root, "")
    # Nothing is as long but a chain of aliases that is made to be.
    return ".".join([root, *chain.names][:MAX_PARTS]) if root and len(root) < MAX_ROOT else ""


def _chain(node: ast.AST, inside: set[int]) -> Chain | None:
    """The expression as a root and names, if it is one; its nodes go to `inside`."""
    names: list[str] = []
    while True:
        inside.add(id(node))
        if isinstance(node, ast.Attribute):
            names.append(node.attr)
            node = node.value
            continue
        if isinstance(node, ast.Name):
            return Chain(node.id, False, tuple(reversed(names)))
        if not isinstance(node, ast.Call):
            return None
        # `getattr(torch, "softmax")`, `importlib.import_module("torch.nn")` and `__import__("torch")`
        texts = [
            a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)
        ]
        function = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if function == "getattr" and len(node.args) >= 2 and texts:
            names.append(texts[0])
            node = node.args[0]
        elif function in ("import_module", "__import__") and texts and _library(texts[0]):
            return Chain(texts[0], True, tuple(reversed(names)))
        else:
            return None
