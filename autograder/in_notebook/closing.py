# %% [markdown]
# ## Your progress
#
# Run `progress()` in any cell. It shows which exercises pass their visible checks, what fails in
# the others, and how many minutes of work remain.
#
# **How your work is graded.** The grader runs only the code that each exercise needs. Its tests and
# inputs differ from those of the visible checks. Cell order, plots and experiments do not matter.

# %%
from autograder.in_notebook.opening import MEASURED
from autograder.in_notebook.progress import progress


# %% tags=["support"]
def measured() -> None:
    """Print the values that the demonstrations recorded."""
    if MEASURED:
        print("Measured by the demonstrations:")
    for what, value in MEASURED.items():
        print(f"{value:<10.4g} {what}")


# %%
if __name__ == "__main__":
    progress()
    measured()
