# %% [markdown]
# ## How this notebook works
#
# * **Fill in the stubs.** Replace `raise NotImplementedError(...)` with your code. Keep the names
#   of functions, classes, arguments and attributes, because the grader uses them to find your work.
#   You can add cells, functions and imports. The grader has Python's standard library and the
#   packages that the previous cell installs.
# * **Run the checks** in the cell below each stub. They are examples; the grader runs more. To read
#   the code of a check, run `check_NAME??`.
# * **Hints are collapsed.** Open one when you get stuck.
# * **Demonstrations** draw or print something with your functions. They are not graded.
# * **Predict** some of their results: replace `...` with your answer. `sure=1` (a guess) to `sure=5`
#   (certain) is optional. Predictions are not graded.
#
# {{ assistants }}

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
    """Print a demonstration's measurement, and keep it for the table at the end of the notebook."""
    MEASURED[what] = value
    print(f"{what}: {value:.4g}")
