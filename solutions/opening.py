# %% [markdown]
# ## How this notebook works
#
# Work from top to bottom. Each exercise comes in the same order: why the piece is needed, a
# formula with shapes, a cell to fill in, a cell of checks, and hints.
#
# * **Fill in the stub.** Write your code in place of `raise NotImplementedError(...)`. Keep the
#   name of the function or class, its arguments, and the attribute names that the docstring lists:
#   they are how your work is found. You may add functions of your own, in the same cell or in new
#   ones.
# * **Run the checks below it.** They need a second and say what they saw. They are examples; the
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
# the same size throughout a signature.

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
