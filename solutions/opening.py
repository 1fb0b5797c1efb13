# %% [markdown]
# ## How this notebook works
#
# * **Fill in the stubs.** Replace `raise NotImplementedError(...)` with your code. Do not rename
#   functions, classes, arguments or attributes: the grader finds them by name. You can add cells,
#   functions, and imports from the packages above and the standard library.
# * **Run the checks** in the cell below each stub. They are examples; the grader runs more. To read
#   the code of a check, run `check_NAME??`.
# * **Hints are collapsed.** The second gives away almost everything.
# * **Demonstrations** use your functions. They are not graded.
# * **Predict** some of their results: replace `...` with your answer. `sure=1` (a guess) to `sure=5`
#   (certain) is optional.
# * Run **`progress()`** to see what passes.
#
# {{ assistants }}
#
# **How your work is graded.** The grader runs only the code that each exercise needs.
#
# * Support half precision (float16, bfloat16) through float64, and non-contiguous inputs like
#   `x.mT`. Results must have the inputs' dtype and device. Gradients must be finite and reach all
#   floating-point arguments. Do not modify arguments in place.
# * If a docstring specifies a `ValueError`, its message must name an argument, in code or words, as
#   in "the sequence is too long".
# * Apply dropout only in training mode. Initialisation and additional attributes are up to you.
# * A "Not allowed" list applies only to its exercise.
#
# The stars show the difficulty, out of five. In annotations, `Float[Tensor, "*batch n d"]` is a
# floating-point tensor with any leading axes, then axes of sizes `n` and `d`. A letter means the
# same size throughout a signature. `Int` is an integer tensor, here int64, and `#` marks axes that
# may broadcast.

# %%
from autograder.in_notebook.checks import (  # noqa: F401
    demonstration,
    expecting,
    expecting_value_error,
    visible_check,
)
from autograder.in_notebook.inputs import filled, fixed_numbers  # noqa: F401
from autograder.in_notebook.look import look  # noqa: F401
from autograder.in_notebook.predictions import predict  # noqa: F401

# %% tags=["support"]
MEASURED: dict[str, float] = {}


def record(what: str, value: float) -> None:
    """Print a number that a demonstration measured, and store it in MEASURED."""
    MEASURED[what] = value
    print(f"{what}: {value:.4g}")
