# %% [markdown]
# ## How this notebook works
#
# * **Fill in the stubs.** Replace `raise NotImplementedError(...)` with your code. Keep the names
#   of functions, classes, arguments and attributes, because the grader finds your work by them. You
#   can add cells, functions and imports.
# * **Run the checks** in the cell below each stub. They are examples; the grader runs more.
# * **Hints are folded.** The first points in a direction, the second tells you almost everything.
# * **Demonstrations** draw or print something with your functions. They are not graded.
#
# The stars show the difficulty, out of five. In annotations, `Float[Tensor, "*batch n d"]` is a
# floating-point tensor whose last axes have sizes `n` and `d`, after any number of other axes. The
# same letter means the same size throughout a signature. `Int` is int64, and `#` marks an axis that
# may broadcast.

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
