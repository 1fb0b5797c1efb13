"""Ask students to predict a result before they see it. Entry point: `predict`."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from IPython import get_ipython

from autograder.in_notebook.helper_names import helper_names


class Unanswered(Exception):
    """Raised to leave a demonstration before it shows a result that the student has not predicted."""


@dataclass
class Prediction:
    """A student's answer to a question. It is `...` until the student answers."""

    answer: Any = ...
    sure: int | None = None
    is_final: bool = False  # whether the result has been shown

    def __str__(self) -> str:
        if self.answer is ...:
            return "none"
        return _as_text(self.answer) + (f" (sure: {self.sure} of 5)" if self.sure else "")


class Predictions:
    """Record what you expect before you see a result, then show both. Predictions are not graded.

    Replace `...` with your answer: a number, one of the strings in `one_of`, or the list `order` in your order. Optionally,
    add how sure you are, from 1 (a guess) to 5 (certain): `predict("How many?", 900, sure=3)`. To see all results without
    predictions, run `predict.skip()`.
    """

    def __init__(self) -> None:
        self.by_question: dict[str, Prediction] = {}
        self._is_skipped = False

    @helper_names()
    def __call__(
        self,
        question: str,
        answer: Any = ...,
        sure: int | None = None,
        *,
        one_of: Sequence[str] = (),
        order: Sequence[str] = (),
    ) -> None:
        """Record an answer to a question. A later answer replaces it until the result has been shown."""
        prediction = self.by_question.setdefault(question, Prediction())
        expected = f"the list {list(order)} in your order" if order else "a number"
        expected = " or ".join(map(repr, one_of)) or expected
        if answer is not ... and not _is_valid(answer, one_of, order):
            print(f"✗ Not recorded: the answer should be {expected}, not {reprlib.repr(answer)}.")
        elif sure is not None and not (type(sure) is int and 1 <= sure <= 5):
            print(
                "✗ Not recorded: `sure` should be a whole number from 1 (a guess) to 5 (certain), "
                f"not {reprlib.repr(sure)}."
            )
        elif prediction.is_final and (answer, sure) != (prediction.answer, prediction.sure):
            print(f"The result has been shown, so your prediction stays: {prediction}.")
        else:
            prediction.answer, prediction.sure = answer, sure
            if answer is not ...:
                print(f"✓ Your prediction: {prediction}")
            elif not self._is_skipped:
                print(
                    f"✎ Your prediction? Replace `...` with {expected}, then run this cell again."
                )

    @helper_names()
    def skip(self) -> None:
        """Show all results from now on, with or without predictions."""
        self._is_skipped = True
        print("From now on, cells show their results without predictions.")

    @helper_names()
    def reveal(self, question: str, result: Any) -> None:
        """Show a result beside the student's prediction. If there is none, leave the demonstration.

        Outside IPython, where nobody can answer, the result is always shown.
        """
        prediction = self.by_question.setdefault(question, Prediction())
        if prediction.answer is ... and not self._is_skipped and get_ipython() is not None:
            raise Unanswered(
                f"You have not predicted yet: {question} Run the cell above with your answer, then this "
                "cell again. To see all results without predictions, run predict.skip()."
            )
        prediction.is_final = True
        if isinstance(result, float):
            result = float(f"{result:.4g}")
        print(f"{question}\n  Your prediction: {prediction}  |  Result: {_as_text(result)}")

    def count(self) -> tuple[int, int]:
        """Return how many questions have been answered, and how many have been asked."""
        asked = self.by_question.values()
        return sum(prediction.answer is not ... for prediction in asked), len(asked)


def _is_valid(answer: Any, one_of: Sequence[str], order: Sequence[str]) -> bool:
    if order:
        is_list = isinstance(answer, list | tuple) and all(isinstance(a, str) for a in answer)
        return is_list and sorted(answer) == sorted(order)
    if one_of:
        return isinstance(answer, str) and answer in one_of
    is_number = isinstance(answer, Real) and not isinstance(answer, bool)
    return is_number and abs(answer) < 1e15  # infinity and NaN are not


def _as_text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(value)
    return f"{value:,}" if isinstance(value, int | float) else str(value)


predict = Predictions()
