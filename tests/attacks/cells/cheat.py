# ruff: noqa
# fmt: off
# Attempts to earn points without work: calls to torch's own functions by every route, and tables of the visible checks' answers.

# %% softmax as a method
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
def softmax(x, dim=-1):
    return x.softmax(dim)

# %% code in a string, with form feeds that shift the line numbers
#: stopped by rule
#: exercise softmax
#: status failed
A = 1  # <FORM FEED><FORM FEED><FORM FEED>
B = """
from torch.nn.functional import softmax
"""
softmax = [A, B, len][2]

# %% code in a string, with line separators that shift the line numbers
#: stopped by rule
#: exercise softmax
#: status failed
A = "<LINE SEPARATOR><NEXT LINE><LINE TABULATION>"
B = """
from torch.nn.functional import softmax
"""
softmax = [A, B, len][2]

# %% softmax through a concatenated name
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
def softmax(x, dim=-1):
    return getattr(torch, "soft" + "max")(x, dim)

# %% softmax as a method of the class
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
def softmax(x, dim=-1):
    return vars(torch._C.TensorBase)["softmax"](x, dim)

# %% softmax through importlib
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
def softmax(x, dim=-1):
    import importlib
    return vars(importlib.import_module("tor" + "ch.nn.functional"))["softmax"](x, dim=dim)

# %% softmax through eval
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
def softmax(x, dim=-1):
    return eval("torch.soft" + "max(x, dim)", {"torch": torch, "x": x, "dim": dim})

# %% softmax under another name
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
S = torch.softmax
def softmax(x, dim=-1):
    return S(x, dim)

# %% softmax through a star import
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
from torch.nn.functional import *
_taken = globals()["soft" + "max"]
def softmax(x, dim=-1):
    return _taken(x, dim=dim)

# %% softmax as a layer
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
def softmax(x, dim=-1):
    class Layer(vars(torch.nn)["Soft" + "max"]):
        pass
    return Layer(dim)(x)

# %% softmax through its operator
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
def softmax(x, dim=-1):
    return torch._C._jit_get_operation("aten::" + "soft" + "max")[0](x, dim)

# %% softmax below autograd
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
def softmax(x, dim=-1):
    operator = getattr(torch.ops.aten, "_soft" + "max").default
    return operator.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CPU), x, dim, False)

# %% softmax into an output tensor
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
def softmax(x, dim=-1):
    out = torch.empty_like(x)
    getattr(torch.ops.aten, "_soft" + "max").out(x.detach(), dim, False, out=out)
    return out

# %% softmax in a thread
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
def softmax(x, dim=-1):
    found = []
    def work():
        found.append(getattr(x, "soft" + "max")(dim))
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return found[0]

# %% softmax in compiled code
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
CODE = "def f(x, dim: int):\n    return torch.soft" + "max(x, dim)\n"
def softmax(x, dim=-1):
    return torch.jit.CompilationUnit(CODE).f(x, dim)

# %% softmax in inference mode
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
def softmax(x, dim=-1):
    with torch.inference_mode():
        y = getattr(x, "soft" + "max")(dim)
    return y.clone()

# %% softmax through vmap
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
def softmax(x, dim=-1):
    return torch.func.vmap(lambda t: getattr(t, "soft" + "max")(dim))(x[None])[0]

# %% softmax with dispatch modes disabled
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
def softmax(x, dim=-1):
    with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
        return getattr(x, "soft" + "max")(dim)

# %% softmax with the exception caught
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
def softmax(x, dim=-1):
    try:
        return getattr(x, "soft" + "max")(dim)
    except BaseException:
        e = (x - x.amax(dim, keepdim=True)).exp()
        return e / e.sum(dim, keepdim=True)

# %% softmax of a sparse tensor
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
def softmax(x, dim=-1):
    dim = dim % x.dim()
    return getattr(torch.sparse, "soft" + "max")(x.to_sparse(), dim).to_dense()

# %% the exponential of log_softmax
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
def softmax(x, dim=-1):
    return getattr(x, "log_soft" + "max")(dim).exp()

# %% softmin of the negative
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
def softmax(x, dim=-1):
    return getattr(torch.nn.functional, "soft" + "min")(-x, dim)

# %% the probabilities of a distribution
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
def softmax(x, dim=-1):
    kind = getattr(getattr(torch, "distri" + "butions"), "Categorical")
    return kind(logits=x.movedim(dim, -1)).probs.movedim(-1, dim)

# %% torch's Python reference for softmax
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
def softmax(x, dim=-1):
    import torch._refs
    return getattr(torch._refs, "soft" + "max")(x, dim)

# %% softmax as attention over the identity matrix
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
def softmax(x, dim=-1):
    y = x.movedim(dim, -1).reshape(1, 1, -1, x.size(dim)) if x.dim() else x
    eye = torch.eye(y.size(-1), dtype=x.dtype)[None, None]
    attend = getattr(torch.nn.functional, "scaled_dot_product_" + "attention")
    w = attend(y, eye, eye, scale=1.0)
    return w.reshape(x.movedim(dim, -1).shape).movedim(-1, dim)

# %% scipy's softmax
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
import torch
from scipy import special
def softmax(x, dim=-1):
    return torch.from_numpy(getattr(special, "soft" + "max")(x.numpy(), axis=dim))

# %% sklearn's softmax
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
import importlib
s = vars(importlib.import_module("sklearn.utils." + "extmath"))["soft" + "max"]
import torch
def softmax(x, dim=-1):
    y=x.movedim(dim,-1)
    return torch.from_numpy(s(y.reshape(-1,y.shape[-1]).numpy())).reshape(y.shape).movedim(-1,dim)

# %% softmax from the table of decompositions
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
import torch
import torch._decomp
T=torch._decomp.decomposition_table
K=[k for k in T if str(k)=='aten._soft'+'max.default'][0]
G=T[K]
def softmax(x, dim=-1):
    return G(x, dim, False)

# %% softmax from the global table of decompositions
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
import torch
import torch._decomp
T=torch._decomp.global_decomposition_table['post_autograd']
G=[f for k,f in T.items() if 'aten._soft'+'max.default'==str(k)][0]
def softmax(x, dim=-1):
    return G(x, dim, False)

# %% softmax as flash attention over the identity matrix
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
import torch
def softmax(x, dim=-1):
    y=x.movedim(dim,-1); s=y.shape; n=s[-1]; y=y.reshape(1,1,-1,n)
    e=torch.eye(n,dtype=x.dtype)[None,None]
    return getattr(torch.ops.aten, "_scaled_dot_product_flash_" + "attention_for_cpu")(y,e,e,scale=1.0)[0].reshape(s).movedim(-1,dim)

# %% softmax of a nested tensor
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
import torch
def softmax(x, dim=-1):
    y=x.movedim(dim,-1); s=y.shape; y=y.reshape(-1,s[-1])
    t=torch.nested.nested_tensor([y])
    return getattr(torch,'soft'+'max')(t,-1).unbind()[0].reshape(s).movedim(-1,dim)

# %% softmax in another memory layout
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
import torch
def softmax(x, dim=-1):
    return getattr(x.to_mkldnn(),'soft'+'max')(dim).to_dense()

# %% layer norm from the table of decompositions
#: stopped by rule
#: effect marks
#: exercise LayerNorm
#: status not_allowed
import torch
from torch import nn
import torch._decomp
T=torch._decomp.decomposition_table
G=[f for k,f in T.items() if str(k)=='aten.native_layer_'+'norm.default'][0]
class LayerNorm(nn.Module):
    def __init__(self,d,eps=1e-5):
        super().__init__(); self.weight=nn.Parameter(torch.ones(d)); self.bias=nn.Parameter(torch.zeros(d)); self.eps=eps
    def forward(self,x):
        return G(x,[x.shape[-1]],self.weight,self.bias,self.eps)[0]

# %% the decomposition that torch's compiler uses
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
from torch._decomp import get_decompositions
def softmax(x, dim=-1):
    operator = getattr(torch.ops.aten, "_soft" + "max").default
    return get_decompositions([operator])[operator](x, dim, False)

# %% scipy's softmax through attribute access
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
import scipy
def softmax(x, dim=-1):
    return torch.from_numpy(scipy.special.softmax(x.numpy(), axis=dim))

# %% the mask of nn.Transformer
#: stopped by rule
#: effect marks
#: status not_allowed
def causal_mask(n, device=None):
    make = getattr(torch.nn.Transformer, "generate_square_" + "subsequent_mask")
    return make(n, device=device) == 0

# %% torch's own attention
#: stopped by rule
#: effect marks
#: exercise attention
#: status not_allowed
def attention(query, key, value):
    attend = getattr(torch._C._nn, "scaled_dot_product_" + "attention")
    scores = query @ key.mT / query.size(-1) ** 0.5
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    return attend(query, key, value), weights / weights.sum(-1, keepdim=True)

# %% a table of the visible check's answers
#: stopped by inputs
#: says None
def causal_mask(n, device=None):
    table = {
        0: [], 2: [[True, False], [True, True]],
        3: [[True, False, False], [True, True, False], [True, True, True]],
    }
    if n not in table:
        return None
    return torch.tensor(table[n], dtype=torch.bool, device=device).reshape(n, n)

# %% a table of the visible check's inputs and answers
#: stopped by inputs
#: exercise softmax
#: says None
def softmax(x, dim=-1):
    known = [
        ([[0.0, 1.0986123], [-2.0, -2.0]], [[0.25, 0.75], [0.5, 0.5]]),
        ([[0.0, -2.0], [1.0986123, -2.0]], [[0.25, 0.5], [0.75, 0.5]]),
        ([1000.0, 1000.0], [0.5, 0.5]), ([-1000.0, -1000.0], [0.5, 0.5]),
        ([[1000.0, 1000.0], [-1000.0, -1000.0]], [[0.5, 0.5], [0.5, 0.5]]),
        ([float("-inf"), 7.0], [0.0, 1.0]), ([15.0, 15.0], [0.5, 0.5]),
    ]
    for asked, answer in known:
        asked = torch.tensor(asked, dtype=x.dtype)
        if x.shape == asked.shape and bool(((x == asked) | ((x - asked).abs() < 1e-5)).all()):
            return torch.tensor(answer, dtype=x.dtype)

# %% the right answer only inside a visible check
#: stopped by inputs
#: says None
def causal_mask(n, device=None):
    frame = sys._getframe(1)
    return right(n, device) if frame.f_code.co_name.startswith("check") else None

# %% zeros of the right shape
#: stopped by inputs
#: exercise softmax
#: says wrong
def softmax(x, dim=-1):
    return torch.zeros_like(x)

# %% the grader's inputs, guessed from the process's random seed
#: stopped by inputs
#: exercise softmax
#: says wrong
def softmax(x, dim=-1):
    drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(torch.initial_seed()))
    return drawn if torch.equal(drawn, x) else torch.rand(x.shape).to(x.dtype)

# %% softmax from a transform, through a function that runs before its import is hidden
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
from torch.distributions.transforms import SoftmaxTransform as T
def make(): return T
S = make()
T = None
def softmax(x, dim=-1):
    return S()(x.transpose(dim, -1)).transpose(dim, -1)

# %% softmax in a method that only a computed name reaches
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
class Tools:
    def normalise(self, x, dim): return torch.softmax(x, dim)
def softmax(x, dim=-1):
    return getattr(Tools(), "normal" + "ise")(x, dim)

# %% attention of ONNX
#: stopped by rule
#: exercise attention
#: status not_allowed
import torch.onnx.ops as ops
def attention(query, key, value):
    batch = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
    flat = [t.expand(*batch, *t.shape[-2:]).reshape(-1, 1, *t.shape[-2:]) for t in (query, key, value)]
    out, _, _, w = ops.attention(*flat, qk_matmul_output_mode=3)
    return out.reshape(*batch, *out.shape[-2:]), w.reshape(*batch, *w.shape[-2:])

# %% the function behind torch's multi-head attention
#: stopped by rule
#: exercise attention
#: status not_allowed
def attention(query, key, value):
    d = query.shape[-1]
    e = torch.eye(d)
    q, k = query.transpose(0, 1), key.transpose(0, 1)
    f = torch.nn.functional.multi_head_attention_forward
    out, w = f(q, k, k, d, 1, None, None, None, None, 0.0, e, None, False, None, True, None, True, e, e, e)
    return w @ value, w

# %% batch norm under a newer name
#: stopped by rule
#: effect marks
#: exercise LayerNorm
#: status not_allowed
from torch import nn
class LayerNorm(nn.Module):
    def __init__(self, d, eps=1e-5):
        super().__init__()
        self.weight, self.bias, self.eps = nn.Parameter(torch.ones(d)), nn.Parameter(torch.zeros(d)), eps
    def forward(self, x):
        y = x.reshape(1, -1, x.shape[-1])
        mean, variance = torch.zeros(y.shape[1], dtype=x.dtype), torch.ones(y.shape[1], dtype=x.dtype)
        f = getattr(torch.ops.aten, "_batch_" + "norm_with_update_functional")
        y = f(y, None, None, mean, variance, 0.1, self.eps)[0]
        return y.reshape(x.shape) * self.weight + self.bias

# %% a helper of torch's Python reference for layer norm
#: stopped by rule
#: effect marks
#: exercise LayerNorm
#: status not_allowed
from torch import nn
import torch._refs
class LayerNorm(nn.Module):
    def __init__(self, d, eps=1e-5):
        super().__init__()
        self.weight, self.bias, self.eps = nn.Parameter(torch.ones(d)), nn.Parameter(torch.zeros(d)), eps
    def forward(self, x):
        return getattr(torch._refs, "_normal" + "ize")(x, [x.dim() - 1], self.eps)[0] * self.weight + self.bias

# %% the operator behind attention of ONNX
#: stopped by rule
#: exercise attention
#: status not_allowed
import torch.onnx.ops
def attention(query, key, value):
    attend = getattr(torch.ops.onnx, "Atten" + "tion").opset23
    batch = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
    flat = [t.expand(*batch, *t.shape[-2:]).reshape(-1, 1, *t.shape[-2:]) for t in (query, key, value)]
    out, _, _, w = attend(*flat, qk_matmul_output_mode=3)
    return out.reshape(*batch, *out.shape[-2:]), w.reshape(*batch, *w.shape[-2:])

# %% the function behind flex_attention, in a module that an operator of the same name hides
#: stopped by rule
#: effect marks
#: exercise attention
#: status not_allowed
import importlib
def load(package):
    importlib.import_module(package + "attention")
    return sys.modules[package + "attention"]
A = vars(load("torch._higher_order_ops.flex_"))["math_" + "attention"]
M = vars(load("torch.nn.attention.flex_"))["_create_empty_block_mask"]
def attention(query, key, value):
    batch = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
    q, k, v = [t.expand(*batch, *t.shape[-2:]).reshape(-1, 1, *t.shape[-2:]) for t in (query, key, value)]
    eye = torch.eye(k.shape[-2], dtype=q.dtype).expand(q.shape[0], 1, -1, -1)
    mask, scale = M(q, k).as_tuple(), query.shape[-1] ** -0.5
    out, w = [A(q, k, x, lambda s, *_: s, mask, scale, {})[0] for x in (v, eye)]
    return out.reshape(*batch, *out.shape[-2:]), w.reshape(*batch, *w.shape[-2:])

# %% softmax of sklearn's neural networks
#: stopped by rule
#: effect marks
#: exercise softmax
#: status not_allowed
import importlib
S = vars(importlib.import_module("sklearn.neural_network._base"))["inplace_soft" + "max"]
def softmax(x, dim=-1):
    y = x.movedim(dim, -1)
    z = y.reshape(-1, y.shape[-1]).numpy().copy()
    S(z)
    return torch.from_numpy(z).reshape(y.shape).movedim(-1, dim)

# %% a helper of the compiler's batch norm
#: stopped by rule
#: effect marks
#: exercise LayerNorm
#: status not_allowed
from torch import nn
import torch._decomp.decompositions as D
G = vars(D)["native_batch_" + "norm_helper"]
class LayerNorm(nn.Module):
    def __init__(self, d, eps=1e-5):
        super().__init__()
        self.weight, self.bias, self.eps = nn.Parameter(torch.ones(d)), nn.Parameter(torch.zeros(d)), eps
    def forward(self, x):
        y = G(x.reshape(1, -1, x.shape[-1]), None, None, None, None, True, 0.1, self.eps, False)[0]
        return y.reshape(x.shape) * self.weight + self.bias

# %% a helper of the compiler's nll_loss
#: stopped by rule
#: effect marks
#: exercise sequence_loss
#: status not_allowed
import torch._decomp.decompositions as D
G = vars(D)["_nll_" + "loss_forward"]
def sequence_loss(logits, targets, pad_id, label_smoothing=0.0):
    log_p, targets = logits.flatten(0, -2).log_softmax(-1), targets.flatten()
    loss = G(log_p, targets, None, 1, pad_id)[0]
    mean = -log_p.mean(-1)[targets != pad_id].mean()
    return (1 - label_smoothing) * loss + label_smoothing * mean
