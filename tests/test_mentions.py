"""Test which uses of forbidden functions are found in the code of an exercise."""

import re

import pytest
import torch

from autograder.course.forbidden import BUILT_IN_ENTRIES, ForbiddenNames, union
from autograder.slicing.mentions import Vocabulary, find_forbidden

FORBIDDEN = ("LayerNorm", "softmax", "distributions")
VOCABULARY = Vocabulary(
    frozenset(FORBIDDEN), frozenset({"torch", "scipy"}), frozenset({"enable_gqa", "is_causal"})
)


def uses(code: str) -> list[str]:
    """Return the forbidden functions that the code uses. Blank lines separate the code's statements."""
    return find_forbidden(code.strip("\n").split("\n\n"), FORBIDDEN, VOCABULARY)


@pytest.mark.parametrize(
    "code",
    [
        "from torch.nn import Dropout, LayerNorm, Linear, Module\n\nclass A(Module): pass",
        "import torch.distributions\n\ndef f(x): return torch.exp(x)",
        "import torch.testing, torch.distributions as dist\n\ndef f(x): return torch.exp(x)",
        "try:\n    from scipy.special import softmax\nexcept ImportError:\n    pass",
        # The student's own class has the same name.
        "from torch.nn import LayerNorm, Module\n\n"
        "class LayerNorm(Module):\n    def __init__(self): super(LayerNorm, self).__init__()\n\n"
        "norm = LayerNorm(3)",
        "from torch.nn.functional import softmax, relu\n\n"
        "def softmax(x): return softmax(x[0]) if x.ndim > 1 else relu(x)",
        # A local variable has the same name.
        "from torch.nn.functional import softmax\n\ndef f(x):\n    softmax = x.exp()\n    return softmax",
    ],
)
def test_an_import_alone_is_no_use(code: str) -> None:
    assert uses(code) == []


@pytest.mark.parametrize(
    ("code", "path"),
    [
        ("from torch.nn import LayerNorm as L\n\ndef f(d): return L(d)", "torch.nn.LayerNorm"),
        ("from torch.nn import LayerNorm\n\nclass A(LayerNorm): pass", "torch.nn.LayerNorm"),
        (
            "from torch.nn import LayerNorm\n\nclass LayerNorm(LayerNorm): pass",
            "torch.nn.LayerNorm",
        ),
        ("from torch.nn import LayerNorm\n\nA = LayerNorm\n\nLayerNorm = 1", "torch.nn.LayerNorm"),
        # Cells may be out of order.
        ("A = L\n\nfrom torch.nn import LayerNorm as L", "torch.nn.LayerNorm"),
        ("def f(d): return L(d)\n\nfrom torch.nn import LayerNorm as L", "torch.nn.LayerNorm"),
        ("L = 1\n\nfrom torch.nn import LayerNorm as L\n\nA = [L]", "torch.nn.LayerNorm"),
        ("from torch.nn import LayerNorm as L; A = L", "torch.nn.LayerNorm"),
        (
            "try:\n    from scipy.special import softmax as s\nexcept ImportError:\n    s = None\n\n"
            "def f(x): return s(x)",
            "scipy.special.softmax",
        ),
        (
            "if 1:\n    from torch import softmax as s\n    def f(x): return s(x)",
            "torch.softmax",
        ),
        ("def f(x):\n    from torch import softmax as s\n    return s(x)", "torch.softmax"),
        ("class A:\n    from torch import softmax as s\n\nb = A.s", "torch.softmax"),
        ("from torch.distributions import *", "torch.distributions.*"),
        (
            "import torch.distributions\n\ndef f(x): return torch.distributions.Categorical(x)",
            "torch.distributions.Categorical",
        ),
        (
            "import torch.distributions as d\n\ndef f(x): return d.Categorical(x)",
            "torch.distributions",
        ),
        (
            "from torch.distributions import Categorical as C\n\ndef f(x): return C(x)",
            "torch.distributions.Categorical",
        ),
        (
            "import torch.nn.functional as F\n\nG = F\n\ns = G.softmax",
            "torch.nn.functional.softmax",
        ),
        # Names in strings count only where the string is the name of a module or an attribute.
        ("import torch\n\ndef f(x): return getattr(torch, 'softmax')(x)", "torch.softmax"),
        (
            "import importlib\n\ndef f(x): return importlib.import_module('torch.special').softmax(x)",
            "torch.special.softmax",
        ),
        ("def f(x): return __import__('torch').softmax(x)", "torch.softmax"),
    ],
)
def test_uses_of_imported_names_are_found(code: str, path: str) -> None:
    assert uses(code) == [path]


@pytest.mark.parametrize(
    "code",
    [
        "import torch\n\ndef f(x, norm: torch.nn.LayerNorm | None) -> torch.nn.LayerNorm: return x",
        "import torch\n\nclass A:\n    norm: torch.nn.LayerNorm",
        "import torch\n\ndef f(m): return isinstance(m, (torch.nn.Linear, torch.nn.LayerNorm))",
        "from torch.nn import LayerNorm\n\ndef f(m: LayerNorm): assert issubclass(type(m), LayerNorm)",
        # Nothing calls this method.
        "import torch\n\nclass A:\n    def compare(self, x): return torch.softmax(x) - self(x)",
    ],
)
def test_types_and_methods_that_nothing_calls_are_no_use(code: str) -> None:
    assert uses(code) == []


@pytest.mark.parametrize(
    "code",
    [
        "import torch\n\ndef f(x: (s := torch.softmax)): return s(x)",
        "import torch\n\ndef f(x, s=torch.softmax): return s(x)",
        "import torch\n\ndef f(x): return isinstance(torch.softmax(x), torch.Tensor)",
        "import torch\n\nclass A:\n    def compare(self, x): return torch.softmax(x)\n\n"
        "def f(a, x): return a.compare(x)",
        'import torch\n\nclass A:\n    def compare(self, x): return torch.softmax(x)\n\nNAMES = ["compare"]',
        "import torch\n\nclass A:\n    def forward(self, x): return torch.softmax(x)",
        "import torch\n\nclass A:\n    def __call__(self, x): return torch.softmax(x)",
        "import torch\n\nclass A:\n    @decorate(torch.softmax)\n    def compare(self, x): return x",
    ],
)
def test_other_uses_in_signatures_and_methods_are_found(code: str) -> None:
    assert uses(code) == ["torch.softmax"]


@pytest.mark.parametrize(
    ("option", "found"),
    [
        ("enable_gqa=True", ["enable_gqa"]),
        ("enable_gqa=flag", ["enable_gqa"]),
        ("enable_gqa=False", []),
        ("is_causal=True", []),
    ],
)
def test_an_option_is_found_unless_it_is_off(option: str, found: list[str]) -> None:
    code = f"def compare(q, flag): return attend(q, q, q, {option})"
    assert find_forbidden([code], ("enable_gqa",), VOCABULARY) == found


def test_a_course_can_forbid_any_option() -> None:
    own = ForbiddenNames(("is_causal",), ("median", "scaled_dot_product_attention(is_causal)"))
    forbidden = union(["enable_gqa", "own"], {"own": own})
    assert forbidden.options == {"enable_gqa", "is_causal"}
    code = "def compare(q): return attend(q, q, q, is_causal=True, dropout_p=0.5)"
    vocabulary = Vocabulary(frozenset(forbidden.names), forbidden.libraries, forbidden.options)
    assert find_forbidden([code], own.names, vocabulary) == ["is_causal"]
    assert find_forbidden([code], ("enable_gqa",), vocabulary) == []


def test_methods_that_the_stub_mentions_count_as_called() -> None:
    code = ["import torch", "class A:\n    def encode(self, x): return torch.softmax(x)"]
    stub = "class A:\n    def encode(self, x): raise NotImplementedError"
    assert find_forbidden(code, FORBIDDEN, VOCABULARY) == []
    assert find_forbidden(code, FORBIDDEN, VOCABULARY, stub) == ["torch.softmax"]


# Operators that do not compute the result on a CPU in full precision: gradients, statistics, and kernels for other devices,
# for nested tensors and for quantised ones.
OTHER = re.compile(
    r"backward|stats|elemt|cudnn|miopen|_mps|flash_attention_forward_no|quantized|nested_tensor"
)


@pytest.mark.parametrize(
    "entry",
    [
        *("softmax", "log_softmax", "layer_norm", "rms_norm", "group_norm", "batch_norm"),
        *("instance_norm", "scaled_dot_product_attention", "kl_div"),
    ],
)
def test_all_operators_named_like_an_entry_are_forbidden(entry: str) -> None:
    aten = {
        schema.name.removeprefix("aten::")
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("aten::")
    }
    operators = {operator.partition(".")[0] for operator in union(BUILT_IN_ENTRIES, {}).operators}
    missing = {name for name in aten if entry in name and not OTHER.search(name)} - operators
    assert not missing
