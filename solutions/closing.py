# %% [markdown]
# ## How far you are
#
# Run the next cell at any time. It runs the visible checks of all exercises on your functions as
# they are now.
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
if __name__ == "__main__":
    import contextlib
    import io

    def outcome(exercise: str) -> str:
        """In a few words: how the visible checks of an exercise end."""
        check = globals().get(f"check_{exercise}")
        if check is None:
            return "run the cell of its checks first"
        try:
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                check()
        except NotImplementedError as error:
            if str(error) == exercise:
                return "not filled in"
            return (
                f"needs {error}" if str(error).isidentifier() else f"NotImplementedError: {error}"
            )
        except AssertionError as error:
            return str(error) or "a check fails"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "holds"

    def progress() -> None:
        """Print a table: exercise, points, how its visible checks end."""
        width = max(map(len, EXERCISES))
        outcomes = {exercise: " ".join(outcome(exercise).split()) for exercise in EXERCISES}
        for exercise, words in outcomes.items():
            short = words if len(words) <= 80 else words[:77] + "..."
            print(f"{exercise:<{width}}  {EXERCISES[exercise]:>3}  {short}")
        holding = sum(words == "holds" for words in outcomes.values())
        print(f"\nThe visible checks hold for {holding} of {len(EXERCISES)} exercises.")

    def measured() -> None:
        """Print a table: what the demonstrations measured."""
        print("\nWhat the demonstrations measured:")
        for what, value in MEASURED.items():
            print(f"{value:<8.4g}{what}")

    progress()
    if MEASURED:
        measured()
