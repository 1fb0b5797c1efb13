# %% [markdown]
# ## Your progress
#
# `progress()` shows which exercises pass their checks, what fails in the others, and how many
# minutes of work remain. "How this notebook works" lists the grading rules.

# %%
from autograder.in_notebook.progress import progress
from solutions.opening import MEASURED


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
