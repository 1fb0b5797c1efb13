# %% [markdown]
# ## How far you are
#
# Run `progress()` in any cell. It shows which exercises pass their visible checks, what fails in the
# others, and how many minutes are left.
#
# **How your work is graded.** The grader takes only what an exercise needs and runs other tests on
# other numbers. Cell order, plots and experiments do not matter.
#
# * Results have the dtype and device of the inputs, float16 to float64. Arguments stay unchanged
#   and may be non-contiguous. Gradients are finite.
# * A promised `ValueError` names the argument that is wrong, as in "d is 10, not divisible by
#   n_heads = 3".
# * Dropout acts only in training mode. Initialisation and additional attributes are up to you.
# * What an exercise does not allow is forbidden in that exercise only.

# %%
from autograder.in_notebook.progress import progress
from solutions.opening import MEASURED

# %%
if __name__ == "__main__":

    def measured() -> None:
        """Print what the demonstrations measured."""
        print("Measured by the demonstrations:")
        for what, value in MEASURED.items():
            print(f"{value:<8.4g}{what}")

    progress()
    if MEASURED:
        measured()
