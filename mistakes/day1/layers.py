# %%
# ruff: noqa: F811 (each cell is a whole, wrong solution of its exercise)
import torch
import torch.nn.functional as F
from torch import Tensor, nn


# %% LayerNorm: unbiased variance
# harvardnlp issue 122, hyunwoongko issue 7, BERT-pytorch issue 30
class LayerNorm(nn.Module):
    """The variance was divided by d − 1 here. Look at the default of torch's `var` and `std`, and
    at the formula."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        variance = x.var(-1, keepdim=True)
        return self.weight * centred / torch.sqrt(variance + self.eps) + self.bias


# %% LayerNorm: eps outside of the root
# ARENA's tests raise eps to 0.1 so that this matters.
class LayerNorm(nn.Module):
    """`eps` is added to the standard deviation here instead of to the variance. Look at where it
    stands in the formula; a large `eps` shows it."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        variance = centred.square().mean(-1, keepdim=True)
        return self.weight * centred / (torch.sqrt(variance) + self.eps) + self.bias


# %% LayerNorm: unbiased, and eps outside of the root
# harvardnlp issue 122 and PR 119, hkproj PR 31: the Annotated Transformer's own form.
class LayerNorm(nn.Module):
    """This is the standard deviation with d − 1 below the line and `eps` added to it. Look at both:
    how torch's `std` divides, and where `eps` stands."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return self.weight * centred / (x.std(-1, keepdim=True) + self.eps) + self.bias


# %% LayerNorm: divided by the variance
class LayerNorm(nn.Module):
    """The result has the standard deviation 1/σ here instead of 1. Look at what the centred values
    are divided by."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        variance = centred.square().mean(-1, keepdim=True)
        return self.weight * centred / (variance + self.eps) + self.bias


# %% LayerNorm: the mean not subtracted
class LayerNorm(nn.Module):
    """This is RMSNorm: the values are divided by their root mean square and keep their mean. Look
    at the first step of the formula."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        centred = x
        variance = centred.square().mean(-1, keepdim=True)
        return self.weight * centred / torch.sqrt(variance + self.eps) + self.bias


# %% LayerNorm: over the last two axes
class LayerNorm(nn.Module):
    """Mean and variance run over positions and features together here. Look at which numbers share
    a mean: those of one position."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean((-2, -1), keepdim=True)
        variance = centred.square().mean((-2, -1), keepdim=True)
        return self.weight * centred / torch.sqrt(variance + self.eps) + self.bias


# %% LayerNorm: over axis 1
class LayerNorm(nn.Module):
    """Mean and variance run over axis 1 here, which is the features only for an input of two axes.
    Look at how the axis is counted."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        variance = centred.square().mean(1, keepdim=True)
        return self.weight * centred / torch.sqrt(variance + self.eps) + self.bias


# %% LayerNorm: eps ignored
class LayerNorm(nn.Module):
    """Whatever `eps` is given, 1e-5 is used here. Look at where your code uses the argument."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.eps = 1e-5
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        variance = centred.square().mean(-1, keepdim=True)
        return self.weight * centred / torch.sqrt(variance + self.eps) + self.bias


# %% LayerNorm: eps 1e-6 by default
# the Annotated Transformer's default
class LayerNorm(nn.Module):
    """Where no `eps` is given, 1e-6 is used here. Look at the default in the signature; rows whose
    values hardly differ show it."""

    def __init__(self, d_model: int, eps: float = 1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        variance = centred.square().mean(-1, keepdim=True)
        return self.weight * centred / torch.sqrt(variance + self.eps) + self.bias


# %% LayerNorm: no eps
class LayerNorm(nn.Module):
    """A row of equal values gives NaN here, 0/0. Look at what `eps` is there for."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        variance = centred.square().mean(-1, keepdim=True)
        return self.weight * centred / torch.sqrt(variance) + self.bias


# %% LayerNorm: bias multiplied too
class LayerNorm(nn.Module):
    """The bias is added before the multiplication with `weight` here. Look at which of the two
    comes last."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        variance = centred.square().mean(-1, keepdim=True)
        return self.weight * (centred / torch.sqrt(variance + self.eps) + self.bias)


# %% LayerNorm: the variance as a difference of squares
class LayerNorm(nn.Module):
    """This is right for values around 0, but where the mean is large against the spread the
    difference of two nearly equal squares is lost in rounding. Look for a form of the variance
    that subtracts first."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        variance = x.square().mean(-1, keepdim=True) - x.mean(-1, keepdim=True).square()
        return self.weight * centred / torch.sqrt(variance + self.eps) + self.bias


# %% LayerNorm: keepdim forgotten
class LayerNorm(nn.Module):
    """A single vector is normalised rightly here, but several at once do not work. Look at the
    shapes of the mean and of the variance beside that of `x`."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1)
        variance = centred.square().mean(-1)
        return self.weight * centred / torch.sqrt(variance + self.eps) + self.bias


# %% LayerNorm: over axis 0
class LayerNorm(nn.Module):
    """Mean and variance run over axis 0 here; for an input of two axes this is batch normalisation.
    Look at which numbers share a mean: those of one position."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(0, keepdim=True)
        variance = centred.square().mean(0, keepdim=True)
        return self.weight * centred / torch.sqrt(variance + self.eps) + self.bias


# %% LayerNorm: one mean for the whole input
class LayerNorm(nn.Module):
    """All numbers of the input share one mean and one variance here, so that a vector depends on
    those around it. Look at the axis that the two run over."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean()
        variance = centred.square().mean()
        return self.weight * centred / torch.sqrt(variance + self.eps) + self.bias


# %% LayerNorm: three axes expected
class LayerNorm(nn.Module):
    """Inputs of three axes get the right answer here, and all others are an error. Look at what
    your code takes for granted about the shape of `x`: a single vector is an input, too."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        _, _, d = x.shape
        centred = x - x.sum(-1, keepdim=True) / d
        variance = centred.square().sum(-1, keepdim=True) / d
        return self.weight * centred / torch.sqrt(variance + self.eps) + self.bias


# %% LayerNorm: eps outside of the root, by torch's std
# the Annotated Transformer's form, once its d − 1 is mended
class LayerNorm(nn.Module):
    """`eps` is added to the standard deviation here instead of to the variance. Look at where it
    stands in the formula; a large `eps` shows it, and rows whose values hardly differ."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return (
            self.weight * centred / (x.std(-1, correction=0, keepdim=True) + self.eps) + self.bias
        )


# %% LayerNorm: bias never added
class LayerNorm(nn.Module):
    """`bias` is there but has no influence. Since it begins as zeros, nothing shows before it is
    trained. Look at the last term of the formula."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        variance = centred.square().mean(-1, keepdim=True)
        return self.weight * centred / torch.sqrt(variance + self.eps)


# %% LayerNorm: parameters under other names
# gamma and beta are the names in Keras.
class LayerNorm(nn.Module):
    """The layer has parameters, but neither a `weight` nor a `bias` among them, so that nothing can
    be copied in. Look at the names that the stub asks for."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.gamma = nn.Parameter(torch.ones(d_model))
        self.beta = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        variance = centred.square().mean(-1, keepdim=True)
        return self.gamma * centred / torch.sqrt(variance + self.eps) + self.beta


# %% LayerNorm: x changed in place
class LayerNorm(nn.Module):
    """The values are right, but the caller's `x` holds other numbers afterwards, and where it needs
    a gradient this is an error. Look at which of your operations write into `x`."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        x -= x.mean(-1, keepdim=True)
        variance = x.square().mean(-1, keepdim=True)
        return self.weight * x / torch.sqrt(variance + self.eps) + self.bias


# %% FeedForward: no activation
class FeedForward(nn.Module):
    """Two linear layers in a row are one linear layer. Look at what stands between them in the
    formula."""

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(self.linear1(x)))


# %% FeedForward: GELU
class FeedForward(nn.Module):
    """The activation here is GELU, as in GPT and BERT. Look at which one this paper uses."""

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(F.gelu(self.linear1(x))))


# %% FeedForward: leaky ReLU
class FeedForward(nn.Module):
    """Negative values are not cut off here but made small. Look at the activation."""

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(F.leaky_relu(self.linear1(x))))


# %% FeedForward: cut off at 6
class FeedForward(nn.Module):
    """Values above 6 are cut off here as well. Look at the activation."""

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(F.relu6(self.linear1(x))))


# %% FeedForward: ReLU at the end
class FeedForward(nn.Module):
    """The activation comes after the second layer here, so that no output is negative. Look at
    where it stands in the formula."""

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.linear2(self.dropout(self.linear1(x))))


# %% FeedForward: ReLU at both layers
class FeedForward(nn.Module):
    """An activation follows the second layer here as well, so that no output is negative. Look at
    how many there are in the formula."""

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.linear2(self.dropout(torch.relu(self.linear1(x)))))


# %% FeedForward: ReLU on the input
class FeedForward(nn.Module):
    """The activation acts on the input here. Look at where it stands in the formula."""

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(self.linear1(torch.relu(x))))


# %% FeedForward: with a residual connection
class FeedForward(nn.Module):
    """The input is added to the output here. Look at who adds it: this module or the layer around
    it."""

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear2(self.dropout(torch.relu(self.linear1(x))))


# %% FeedForward: no dropout
class FeedForward(nn.Module):
    """None of the hidden values is dropped in training mode here. Look at whether `forward` uses
    the dropout that it was given, and where."""

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(torch.relu(self.linear1(x)))


# %% FeedForward: dropout at the end
class FeedForward(nn.Module):
    """Dropout acts on the output here instead of between the two layers. Look at where it stands in
    the formula."""

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.linear2(torch.relu(self.linear1(x))))


# %% FeedForward: dropout on the input
class FeedForward(nn.Module):
    """Dropout acts on the input here instead of between the two layers. Look at where it stands in
    the formula."""

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(torch.relu(self.linear1(self.dropout(x))))


# %% FeedForward: dropout by default
# the paper's 0.1, the default of most public code
class FeedForward(nn.Module):
    """Values are dropped in training mode here even where no `dropout` was given. Look at the
    default in the signature."""

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.1):
        super().__init__()
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(torch.relu(self.linear1(x))))


# %% FeedForward: dropout in evaluation mode too
# nanoGPT PR 240 and 749
class FeedForward(nn.Module):
    """Values are dropped here after `eval()` too. Look at how your dropout knows the mode that the
    module is in."""

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.p = dropout

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(F.dropout(torch.relu(self.linear1(x)), self.p))


# %% FeedForward: dropout twice
class FeedForward(nn.Module):
    """Dropout acts between the two layers here, and on the output as well. Look at how often it
    stands in the formula."""

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.linear2(self.dropout(torch.relu(self.linear1(x)))))


# %% FeedForward: half of the values dropped
class FeedForward(nn.Module):
    """In training mode half of the hidden values are dropped here, whatever `dropout` says. Look at
    what your dropout is made with."""

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.dropout = nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(torch.relu(self.linear1(x))))


# %% FeedForward: scaled down in evaluation mode
# Srivastava et al. 2014, section 4
class FeedForward(nn.Module):
    """After `eval()` the hidden values are multiplied by 1 − p here, as in the first papers on
    dropout. Look at when this chapter scales, and which values."""

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.p = dropout

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.linear1(x))
        if self.training:
            return self.linear2(hidden * (torch.rand_like(hidden) >= self.p))
        return self.linear2(hidden * (1 - self.p))


# %% FeedForward: a tensor left on the CPU
class FeedForward(nn.Module):
    """On another device than the CPU this is an error, in training mode at least: a tensor that
    your code makes is not where `x` is. Look at each tensor that is made here."""

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.p = dropout

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.linear1(x))
        if self.training:
            hidden = hidden * (torch.rand(hidden.shape) >= self.p) / (1 - self.p)
        return self.linear2(hidden)


# %% FeedForward: only for inputs in order in memory
class FeedForward(nn.Module):
    """The values are right, but an input that lies in memory in another order, such as a transposed
    one, is an error here. Look at which operation needs its input in one piece."""

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.linear1 = nn.Linear(d_model, d_ff)
        self.linear2 = nn.Linear(d_ff, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.view(-1, x.shape[-1])
        return self.linear2(self.dropout(torch.relu(self.linear1(rows)))).view(x.shape)


# %% FeedForward: sizes exchanged
class FeedForward(nn.Module):
    """`linear1` leads from `d_ff` to `d_model` here and `linear2` back, which works only where the
    two are equal. Look at which size of an `nn.Linear` comes first."""

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.linear1 = nn.Linear(d_ff, d_model)
        self.linear2 = nn.Linear(d_model, d_ff)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(torch.relu(self.linear1(x))))


# %% FeedForward: always four times as wide
# nanoGPT's sizes
class FeedForward(nn.Module):
    """The hidden layer has 4 · d_model features here, whatever `d_ff` says. Look at where your code
    uses the argument."""

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.linear1 = nn.Linear(d_model, 4 * d_model)
        self.linear2 = nn.Linear(4 * d_model, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(torch.relu(self.linear1(x))))


# %% FeedForward: layers under other names
class FeedForward(nn.Module):
    """There is no `linear1` here into which weights could be copied. Look at the attributes that
    the stub asks for, and at their names."""

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.fc1 = nn.Linear(d_model, d_ff)
        self.fc2 = nn.Linear(d_ff, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.dropout(torch.relu(self.fc1(x))))


# %% EncoderLayer: pre-norm
# harvardnlp issues 13, 92 and 110: text and code of the Annotated Transformer are at odds.
class EncoderLayer(nn.Module):
    """The norms stand in front of attention and network here, as in GPT-2. Look at where the paper
    and the formula have them."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        normed = self.norm1(x)
        x = x + self.dropout(self.self_attention(normed, normed, normed, mask)[0])
        return x + self.dropout(self.feed_forward(self.norm2(x)))


# %% EncoderLayer: no residual connection around attention
class EncoderLayer(nn.Module):
    """Attention replaces x here instead of being added to it. Look at the first sum of
    the formula."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.norm1(self.dropout(self.self_attention(x, x, x, mask)[0]))
        return self.norm2(x + self.dropout(self.feed_forward(x)))


# %% EncoderLayer: no residual connection around the network
class EncoderLayer(nn.Module):
    """The network replaces x here instead of being added to it. Look at the second sum of the
    formula."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        return self.norm2(self.dropout(self.feed_forward(x)))


# %% EncoderLayer: the second sum with the layer's input
class EncoderLayer(nn.Module):
    """The second residual connection starts at the input of the layer here instead of at what the
    first norm gave. Look at which x is meant after the first step."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        return self.norm2(x + self.dropout(self.feed_forward(y)))


# %% EncoderLayer: norms on the branches only
class EncoderLayer(nn.Module):
    """The norm acts on the result of attention or network here, before the sum, so that x itself is
    never normalised. Look at what stands inside of the norm."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.norm1(self.dropout(self.self_attention(x, x, x, mask)[0]))
        return x + self.norm2(self.dropout(self.feed_forward(x)))


# %% EncoderLayer: one norm used twice
class EncoderLayer(nn.Module):
    """The first norm is used in both places here and the second one never. Look at which norm
    belongs to which step."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        return self.norm1(x + self.dropout(self.feed_forward(x)))


# %% EncoderLayer: one norm for both steps
class EncoderLayer(nn.Module):
    """Both steps use the same norm here: `norm1` and `norm2` are one object, or `norm2` is called twice. Look at
    how the two are made: each step has a norm with weights of its own."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = self.norm1
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        return self.norm2(x + self.dropout(self.feed_forward(x)))


# %% EncoderLayer: norms exchanged
class EncoderLayer(nn.Module):
    """The two norms have changed places here. Look at which one belongs to which step; it matters
    once they are trained."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.norm2(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        return self.norm1(x + self.dropout(self.feed_forward(x)))


# %% EncoderLayer: the mask not passed on
class EncoderLayer(nn.Module):
    """These are the answers without any mask. Look at what self-attention is called with."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x)[0]))
        return self.norm2(x + self.dropout(self.feed_forward(x)))


# %% EncoderLayer: always one head
class EncoderLayer(nn.Module):
    """Attention has one head here whatever `n_heads` says. Look at what it is made with."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, 1)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        return self.norm2(x + self.dropout(self.feed_forward(x)))


# %% EncoderLayer: no dropout in the network
class EncoderLayer(nn.Module):
    """In training mode no hidden value of the feed-forward network is dropped here. Look at what it
    is made with."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        return self.norm2(x + self.dropout(self.feed_forward(x)))


# %% EncoderLayer: no dropout
class EncoderLayer(nn.Module):
    """In training mode what attention and network give is added to x undropped here, and no hidden
    value is dropped either. Look at where the formula has dropout."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.norm1(x + self.self_attention(x, x, x, mask)[0])
        return self.norm2(x + self.feed_forward(x))


# %% EncoderLayer: no dropout on what the steps give
class EncoderLayer(nn.Module):
    """In training mode what attention and network give is added to x undropped here; dropout acts
    elsewhere, if at all. Look at what stands inside of dropout in the formula."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.dropout(self.norm1(x + self.self_attention(x, x, x, mask)[0]))
        return self.dropout(self.norm2(x + self.feed_forward(x)))


# %% EncoderLayer: dropout in evaluation mode too
# nanoGPT PR 240 and 749
class EncoderLayer(nn.Module):
    """Values are dropped here after `eval()` too. Look at how your dropout knows the mode that the
    module is in."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.p = dropout

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.norm1(x + F.dropout(self.self_attention(x, x, x, mask)[0], self.p))
        return self.norm2(x + F.dropout(self.feed_forward(x), self.p))


# %% EncoderLayer: dropout by default
# the paper's 0.1, the default of torch's own layer
class EncoderLayer(nn.Module):
    """Values are dropped in training mode here even where no `dropout` was given. Look at the
    default in the signature."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.1):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        return self.norm2(x + self.dropout(self.feed_forward(x)))


# %% EncoderLayer: dropout on the sums
class EncoderLayer(nn.Module):
    """Dropout acts on the whole sum here, in front of the norm, so that x itself is dropped too.
    Look at what stands inside of dropout in the formula."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.norm1(self.dropout(x + self.self_attention(x, x, x, mask)[0]))
        return self.norm2(self.dropout(x + self.feed_forward(x)))


# %% EncoderLayer: the mask inverted
# True hides a position in torch's own layers.
class EncoderLayer(nn.Module):
    """Allowed and forbidden positions are exchanged here: attention looks where the mask is False.
    Look at what True means in this course."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        mask = None if mask is None else ~mask
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        return self.norm2(x + self.dropout(self.feed_forward(x)))


# %% EncoderLayer: x added again behind the norm
class EncoderLayer(nn.Module):
    """Behind each norm, the input of the step is added once more here, so that x is added twice.
    Look at which of the two sums the formula has."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        return x + self.norm2(x + self.dropout(self.feed_forward(x)))


# %% EncoderLayer: no norm after attention
class EncoderLayer(nn.Module):
    """The sum with what attention gives goes on as it is here, and the first norm is never used.
    Look at what each of the two steps ends with."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.dropout(self.self_attention(x, x, x, mask)[0])
        return self.norm2(x + self.dropout(self.feed_forward(x)))


# %% EncoderLayer: no norm after the network
class EncoderLayer(nn.Module):
    """The sum with what the network gives is the result as it is here, and the second norm is never
    used. Look at what each of the two steps ends with."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        return x + self.dropout(self.feed_forward(x))


# %% EncoderLayer: x changed in place
class EncoderLayer(nn.Module):
    """The values are right, but the caller's `x` holds other numbers afterwards, and where it needs
    a gradient this is an error. Look at which of your operations write into `x`."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x += self.dropout(self.self_attention(x, x, x, mask)[0])
        x = self.norm1(x)
        return self.norm2(x + self.dropout(self.feed_forward(x)))


# %% EncoderLayer: self_attention under another name
# torch's name, and the Annotated Transformer's
class EncoderLayer(nn.Module):
    """There is no `self_attention.query` here into which weights could be copied. Look at the
    attributes that the stub asks for, and at their names."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attn = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.norm1(x + self.dropout(self.self_attn(x, x, x, mask)[0]))
        return self.norm2(x + self.dropout(self.feed_forward(x)))


# %% DecoderLayer: pre-norm
# harvardnlp issues 13, 92 and 110
class DecoderLayer(nn.Module):
    """The norms stand in front of the three steps here, as in GPT-2. Look at where the paper and
    the formula have them."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.norm3 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, memory, mask=None, memory_mask=None):
        y = self.norm1(x)
        x = x + self.dropout(self.self_attention(y, y, y, mask)[0])
        y = self.norm2(x)
        x = x + self.dropout(self.cross_attention(y, memory, memory, memory_mask)[0])
        return x + self.dropout(self.feed_forward(self.norm3(x)))


# %% DecoderLayer: memory attends to x
class DecoderLayer(nn.Module):
    """Here the memory asks and x answers. Look at which of the two the queries come from, and how
    long the result has to be."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.norm3 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, memory, mask=None, memory_mask=None):
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        x = self.norm2(x + self.dropout(self.cross_attention(memory, x, x, memory_mask)[0]))
        return self.norm3(x + self.dropout(self.feed_forward(x)))


# %% DecoderLayer: cross-attention without the memory
class DecoderLayer(nn.Module):
    """The second attention looks at x again here, so that the source has no influence. Look at
    where its keys and values come from."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.norm3 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, memory, mask=None, memory_mask=None):
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        x = self.norm2(x + self.dropout(self.cross_attention(x, x, x, mask)[0]))
        return self.norm3(x + self.dropout(self.feed_forward(x)))


# %% DecoderLayer: no mask on the target
# xformers issue 103, keras issue 23038
class DecoderLayer(nn.Module):
    """The future is visible in self-attention here. Look at which of the two masks it is called
    with."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.norm3 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, memory, mask=None, memory_mask=None):
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x)[0]))
        x = self.norm2(x + self.dropout(self.cross_attention(x, memory, memory, memory_mask)[0]))
        return self.norm3(x + self.dropout(self.feed_forward(x)))


# %% DecoderLayer: no mask on the memory
class DecoderLayer(nn.Module):
    """Padding in the source is visible here. Look at which of the two masks cross-attention is
    called with."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.norm3 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, memory, mask=None, memory_mask=None):
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        x = self.norm2(x + self.dropout(self.cross_attention(x, memory, memory)[0]))
        return self.norm3(x + self.dropout(self.feed_forward(x)))


# %% DecoderLayer: the target's mask in cross-attention
# Informer issue 38; keras-io PR 1046 and joeynmt issue 151 have it for padding.
class DecoderLayer(nn.Module):
    """Cross-attention is masked with the target's mask here: that fits only where source and target
    are equally long, and then it hides the wrong positions. Look at whose positions its keys
    are."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.norm3 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, memory, mask=None, memory_mask=None):
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        x = self.norm2(x + self.dropout(self.cross_attention(x, memory, memory, mask)[0]))
        return self.norm3(x + self.dropout(self.feed_forward(x)))


# %% DecoderLayer: self-attention used twice
class DecoderLayer(nn.Module):
    """The weights of self-attention do the cross-attention as well here, and its own are never
    used. Look at which module each step calls."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.norm3 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, memory, mask=None, memory_mask=None):
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        x = self.norm2(x + self.dropout(self.self_attention(x, memory, memory, memory_mask)[0]))
        return self.norm3(x + self.dropout(self.feed_forward(x)))


# %% DecoderLayer: cross-attention first
class DecoderLayer(nn.Module):
    """Attention to the memory comes before self-attention here. Look at the order of the steps."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.norm3 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, memory, mask=None, memory_mask=None):
        x = self.norm2(x + self.dropout(self.cross_attention(x, memory, memory, memory_mask)[0]))
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        return self.norm3(x + self.dropout(self.feed_forward(x)))


# %% DecoderLayer: no residual connection around cross-attention
class DecoderLayer(nn.Module):
    """Cross-attention replaces x here instead of being added to it. Look at the second sum."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.norm3 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, memory, mask=None, memory_mask=None):
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        x = self.norm2(self.dropout(self.cross_attention(x, memory, memory, memory_mask)[0]))
        return self.norm3(x + self.dropout(self.feed_forward(x)))


# %% DecoderLayer: cross-attention asks with the layer's input
class DecoderLayer(nn.Module):
    """The queries of cross-attention are the input of the layer here instead of what the first norm
    gave. Look at which x is meant after the first step."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.norm3 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, memory, mask=None, memory_mask=None):
        y = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        x = self.norm2(y + self.dropout(self.cross_attention(x, memory, memory, memory_mask)[0]))
        return self.norm3(x + self.dropout(self.feed_forward(x)))


# %% DecoderLayer: the second norm used twice
class DecoderLayer(nn.Module):
    """The second norm follows the network as well here, and the third one is never used. Look at
    which norm belongs to which step."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.norm3 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, memory, mask=None, memory_mask=None):
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        x = self.norm2(x + self.dropout(self.cross_attention(x, memory, memory, memory_mask)[0]))
        return self.norm2(x + self.dropout(self.feed_forward(x)))


# %% DecoderLayer: one norm for all three steps
class DecoderLayer(nn.Module):
    """All three steps use the same norm here: `norm1`, `norm2` and `norm3` are one object. Look at how they are
    made: each step has a norm with weights of its own."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = self.norm3 = self.norm1
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, memory, mask=None, memory_mask=None):
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        x = self.norm2(x + self.dropout(self.cross_attention(x, memory, memory, memory_mask)[0]))
        return self.norm3(x + self.dropout(self.feed_forward(x)))


# %% DecoderLayer: no dropout in the network
class DecoderLayer(nn.Module):
    """In training mode no hidden value of the feed-forward network is dropped here. Look at what it
    is made with."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.norm3 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, memory, mask=None, memory_mask=None):
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        x = self.norm2(x + self.dropout(self.cross_attention(x, memory, memory, memory_mask)[0]))
        return self.norm3(x + self.dropout(self.feed_forward(x)))


# %% DecoderLayer: no dropout
class DecoderLayer(nn.Module):
    """In training mode what the three steps give is added to x undropped here, and no hidden value
    is dropped either. Look at where the formula has dropout."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.norm3 = LayerNorm(d_model)

    def forward(self, x, memory, mask=None, memory_mask=None):
        x = self.norm1(x + self.self_attention(x, x, x, mask)[0])
        x = self.norm2(x + self.cross_attention(x, memory, memory, memory_mask)[0])
        return self.norm3(x + self.feed_forward(x))


# %% DecoderLayer: masks that do not fit
class DecoderLayer(nn.Module):
    """Where x and memory differ in length, a call with either mask is an error here. Look at which
    of the two masks each attention gets, and whether it gets it as it is."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.norm3 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, memory, mask=None, memory_mask=None):
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, memory_mask)[0]))
        x = self.norm2(x + self.dropout(self.cross_attention(x, memory, memory, mask)[0]))
        return self.norm3(x + self.dropout(self.feed_forward(x)))


# %% DecoderLayer: values from x
class DecoderLayer(nn.Module):
    """Cross-attention compares x with the memory here, but what it takes the mean of is x; this
    works only where the two are equally long. Look at where the values come from."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.norm3 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, memory, mask=None, memory_mask=None):
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        x = self.norm2(x + self.dropout(self.cross_attention(x, memory, x, memory_mask)[0]))
        return self.norm3(x + self.dropout(self.feed_forward(x)))


# %% DecoderLayer: keys from x
class DecoderLayer(nn.Module):
    """Cross-attention compares x with itself here and takes the mean of the memory; this works only
    where the two are equally long. Look at where the keys come from."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.norm3 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, memory, mask=None, memory_mask=None):
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        x = self.norm2(x + self.dropout(self.cross_attention(x, x, memory, memory_mask)[0]))
        return self.norm3(x + self.dropout(self.feed_forward(x)))


# %% DecoderLayer: both masks inverted
# True hides a position in torch's own layers.
class DecoderLayer(nn.Module):
    """Allowed and forbidden positions are exchanged in both masks here: attention looks where a
    mask is False. Look at what True means in this course."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.norm3 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, memory, mask=None, memory_mask=None):
        mask = None if mask is None else ~mask
        memory_mask = None if memory_mask is None else ~memory_mask
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        x = self.norm2(x + self.dropout(self.cross_attention(x, memory, memory, memory_mask)[0]))
        return self.norm3(x + self.dropout(self.feed_forward(x)))


# %% DecoderLayer: the memory's mask inverted
class DecoderLayer(nn.Module):
    """In cross-attention allowed and forbidden positions are exchanged here, while `mask` is used
    rightly. Look at what True means in `memory_mask`."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.norm3 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, memory, mask=None, memory_mask=None):
        memory_mask = None if memory_mask is None else ~memory_mask
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        x = self.norm2(x + self.dropout(self.cross_attention(x, memory, memory, memory_mask)[0]))
        return self.norm3(x + self.dropout(self.feed_forward(x)))


# %% DecoderLayer: the second and third norm exchanged
class DecoderLayer(nn.Module):
    """The last two norms have changed places here. Look at which one belongs to which step; it
    matters once they are trained."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.norm3 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, memory, mask=None, memory_mask=None):
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        x = self.norm3(x + self.dropout(self.cross_attention(x, memory, memory, memory_mask)[0]))
        return self.norm2(x + self.dropout(self.feed_forward(x)))


# %% DecoderLayer: no dropout on the network's output
class DecoderLayer(nn.Module):
    """In training mode what the network gives is added to x undropped here. Look at what is inside
    of dropout in each of the three sums."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.norm3 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, memory, mask=None, memory_mask=None):
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        x = self.norm2(x + self.dropout(self.cross_attention(x, memory, memory, memory_mask)[0]))
        return self.norm3(x + self.feed_forward(x))


# %% DecoderLayer: dropout in evaluation mode too
# nanoGPT PR 240 and 749
class DecoderLayer(nn.Module):
    """Values are dropped here after `eval()` too. Look at how your dropout knows the mode that the
    module is in."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.norm3 = LayerNorm(d_model)
        self.p = dropout

    def forward(self, x, memory, mask=None, memory_mask=None):
        x = self.norm1(x + F.dropout(self.self_attention(x, x, x, mask)[0], self.p))
        x = self.norm2(
            x + F.dropout(self.cross_attention(x, memory, memory, memory_mask)[0], self.p)
        )
        return self.norm3(x + F.dropout(self.feed_forward(x), self.p))


# %% EncoderLayer: the last mask kept
class EncoderLayer(nn.Module):
    """A call without a mask is treated here as if it had the mask of an earlier call. Look at what
    one call leaves to the next."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        self.mask = None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None:
            self.mask = mask
        attended = self.self_attention(x, x, x, self.mask)[0]
        x = self.norm1(x + self.dropout(attended))
        return self.norm2(x + self.dropout(self.feed_forward(x)))


# %% DecoderLayer: the mask for a memory of the same length as well
class DecoderLayer(nn.Module):
    """Where the memory is as long as x and has no mask, it is hidden by the mask of x here. Look at
    which positions each of the two masks is about."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.norm3 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
    ) -> Tensor:
        if memory_mask is None and memory.shape[1] == x.shape[1]:
            memory_mask = mask
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        attended = self.cross_attention(x, memory, memory, memory_mask)[0]
        x = self.norm2(x + self.dropout(attended))
        return self.norm3(x + self.dropout(self.feed_forward(x)))


# %% DecoderLayer: the first memory kept
class DecoderLayer(nn.Module):
    """A call with another memory of the same shape sees the memory of an earlier call here. Look at
    what one call leaves to the next."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.norm3 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        self.memory = None

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
    ) -> Tensor:
        if self.memory is None or self.memory.shape != memory.shape:
            self.memory = memory
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        attended = self.cross_attention(x, self.memory, self.memory, memory_mask)[0]
        x = self.norm2(x + self.dropout(attended))
        return self.norm3(x + self.dropout(self.feed_forward(x)))


# %% LayerNorm: mean and variance without gradients
class LayerNorm(nn.Module):
    """The values are right, but the gradient of x takes mean and variance for constants here. Look
    at `no_grad` and `detach`."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(-1, keepdim=True).detach()
        variance = x.var(-1, unbiased=False, keepdim=True).detach()
        return self.weight * (x - mean) / torch.sqrt(variance + self.eps) + self.bias


# %% LayerNorm: float32 whatever comes in
class LayerNorm(nn.Module):
    """The result is float32 here, whatever x is. Look at the dtype that has to come out."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        centred = x - x.mean(-1, keepdim=True)
        variance = x.var(-1, unbiased=False, keepdim=True)
        scale, shift = self.weight.float(), self.bias.float()
        return scale * centred / torch.sqrt(variance + self.eps) + shift


# %% DecoderLayer: one attention for both steps
class DecoderLayer(nn.Module):
    """Both steps share one attention here, so that each would learn against the other. Look at how
    often you make one, and how often you only give it a second name."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.norm3 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, memory, mask=None, memory_mask=None):
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        x = self.norm2(x + self.dropout(self.cross_attention(x, memory, memory, memory_mask)[0]))
        return self.norm3(x + self.dropout(self.feed_forward(x)))


# %% DecoderLayer: the memory normalised
class DecoderLayer(nn.Module):
    """The memory goes through a norm before it is read here. It was normalised where it was made;
    look at what norm2 is for."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)
        self.norm1 = LayerNorm(d_model)
        self.norm2 = LayerNorm(d_model)
        self.norm3 = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, memory, mask=None, memory_mask=None):
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x, mask)[0]))
        memory = self.norm2(memory)
        x = self.norm2(x + self.dropout(self.cross_attention(x, memory, memory, memory_mask)[0]))
        return self.norm3(x + self.dropout(self.feed_forward(x)))
