# %% [markdown]
# ## Your progress
#
# Run `progress()` in any cell. It shows which exercises pass their visible checks, what fails in
# the others, and how many minutes of work remain.
#
# **How your work is graded.** The grader runs only the code that each exercise needs. Its tests and
# inputs differ from those of the visible checks. Cell order, plots and experiments do not matter.
#
# * Support float16 to float64 and non-contiguous inputs. Results must have the same dtype and
#   device as the inputs. Gradients must be finite. Do not modify arguments in place.
# * If a docstring specifies a `ValueError`, its message must name the invalid argument, as in "d is
#   10, not divisible by n_heads = 3".
# * Apply dropout only in training mode. Initialisation and additional attributes are up to you.
# * Each "Not allowed" list applies only to its own exercise.

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
