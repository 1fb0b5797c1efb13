# %% [markdown]
# ## How this notebook works
#
# Work from top to bottom. Each exercise comes in the same order: why the piece is needed, a
# formula with shapes, a cell to fill in, a cell of checks, and hints.
#
# * **Fill in the stub.** Write your code in place of `raise NotImplementedError(...)`. Keep the
#   name of the function or class, its arguments, and the attribute names that the docstring lists:
#   they are how your work is found. You may add functions and imports of your own, in the same cell
#   or in new ones.
# * **Run the checks below it.** They take a second and say what they saw. They are examples; the
#   grading uses other numbers and looks closer, at just what the docstring and the text promise.
# * **Hints are folded.** The first one points in a direction, the second says almost everything.
#   Try before you open them.
# * **Demonstrations** draw or print something with your functions and are not graded. Where one
#   needs an exercise that is still empty, it says which.
# * **Grading reads your functions only.** It does not depend on the order in which you ran the
#   cells, on plots, or on what is printed; an exercise that is missing or broken costs its own
#   points and no others. The stars (of five) say how difficult an exercise is, the minutes are a
#   guess.
#
# In the annotations, `Float[Tensor, "*batch n d"]` is a floating-point tensor whose last axes
# have the sizes `n` and `d`, after any number of leading axes (also none). The same letter means
# the same size throughout a signature. `Int` is int64; a `#` before a size means that it may also
# be 1 and is then stretched (broadcast).

# %% [markdown]
# ### What holds in every exercise
#
# It is expected throughout, and not said again each time:
#
# * The result has the dtype and the device of the inputs, from float16 to float64. Arguments are not
#   changed in place, and gradients flow and stay finite. Tensors may lie in memory in any way (a
#   transposed one is a tensor, too).
# * Where a docstring promises a `ValueError`, its message names an argument that is at odds, as in
#   "d_model is 10, which is not divisible by n_heads = 3".
# * Masks are boolean, and **True means that attention is allowed**.
# * Dropout acts in training mode and is off in evaluation mode.
# * An `nn.Linear` has a bias, and a norm an eps of 1e-5, where nothing else is said. How weights are
#   initialised is up to you, and so are further attributes.
# * What is not allowed is named in the text of an exercise and holds for that exercise alone. All
#   else of torch is yours.

# %%
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def demonstration() -> Iterator[None]:
    """Say which exercise to fill in first, where a demonstration meets an empty stub."""
    try:
        yield
    except NotImplementedError as error:
        # A stub raises its own name. What torch has not implemented comes as a sentence.
        if not str(error).isidentifier():
            raise
        print(
            f"This demonstration needs your `{error}`, which is still empty: "
            "fill it in, then run this cell again."
        )


MEASURED: dict[str, float] = {}


def record(what: str, value: float) -> None:
    """Print a number that a demonstration measured, and keep it for the table at the end of the day."""
    MEASURED[what] = value
    print(f"{what}: {value:.4g}")
