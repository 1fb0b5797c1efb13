"""Test the helper code in the student's notebook: visible checks, stand-ins for unfinished exercises, hints and progress."""

from __future__ import annotations

import itertools
import linecache
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from autograder.in_notebook import (
    checks,
    helper_names,
    hints,
    inputs,
    material,
    not_allowed,
    progress,
)
from autograder.in_notebook.checks import demonstration, expecting, expecting_value_error

DOUBLE = "def double(x):\n    return x + x\n"
EMPTY_DOUBLE = 'def double(x):\n    raise NotImplementedError("double")\n'
EMPTY_QUADRUPLE = 'def quadruple(x):\n    raise NotImplementedError("quadruple")\n'
QUADRUPLE = "def quadruple(x):\n    return double(double(x))\n"
CHECKS = """
@visible_check
def check_double():
    assert torch.equal(double(torch.ones(2)), torch.full((2,), 2.0)), "1 should give 2"
    print("double passes")

@visible_check
def check_quadruple():
    with expecting("3 should give 12"):
        seen = quadruple(torch.tensor([3.0]))
    assert seen == 12, f"3 should give 12; yours gives {seen.item():g}"
    assert quadruple(torch.tensor([0.5])) == 2
    print("quadruple passes")
"""
STAND_IN = "def double(x):\n    return torch.mul(x, 2)\n"
EXERCISES = {"double": ("Numbers", 2.0, 10), "quadruple": ("More <numbers>", 3.0, 25)}


class Notebook:
    """A notebook whose cells run in the main module of this process."""

    def __init__(self) -> None:
        self.names = vars(sys.modules["__main__"])
        self._count = 0

    def run(self, *cells: str) -> None:
        for source in cells:
            self._count += 1
            file = f"<notebook cell {self._count}>"
            lines = source.splitlines(keepends=True)
            linecache.cache[file] = (len(source), None, lines, file)
            exec(compile(source, file, "exec", dont_inherit=True), self.names)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Notebook]:
    main = types.ModuleType("__main__")
    vars(main).update(torch=torch, visible_check=checks.visible_check, expecting=expecting)
    monkeypatch.setitem(sys.modules, "__main__", main)
    material.load_material("1", EXERCISES, {"double": ["mul", "addmm"]}, STAND_IN, {}, ())
    yield Notebook()
    for state in (
        helper_names.EXERCISES,
        checks.STAND_INS,
        checks._outcomes,
        hints.OUTPUTS,
        not_allowed.NOT_ALLOWED,
    ):
        state.clear()


def printed(capsys: pytest.CaptureFixture[str], action: Callable[[], Any]) -> str:
    capsys.readouterr()
    action()
    return capsys.readouterr().out


# ---- stand-ins


@pytest.mark.parametrize(
    ("earlier", "reason"),
    [
        (EMPTY_DOUBLE, "is not filled in"),
        ("def double(x):\n    return x\n", "fails its checks"),
        ("def double(x):\n    return undefined\n", "fails its checks"),
        ("", "is not filled in"),
    ],
)
def test_a_stand_in_replaces_an_unfinished_exercise_and_is_reported(
    notebook: Notebook, capsys: pytest.CaptureFixture[str], earlier: str, reason: str
) -> None:
    notebook.run(earlier, QUADRUPLE, CHECKS)
    own = notebook.names.get("double")
    shown = printed(capsys, notebook.names["check_quadruple"])
    assert "quadruple passes" in shown
    assert f"Used a stand-in, because your version {reason}: `double`." in shown
    assert notebook.names.get("double") is own


def test_a_finished_exercise_is_not_replaced(
    notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook.run(DOUBLE, QUADRUPLE, CHECKS)
    assert "stand-in" not in printed(capsys, notebook.names["check_quadruple"])


def test_an_exercise_counts_as_finished_after_it_was_corrected(
    notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook.run(EMPTY_DOUBLE, QUADRUPLE, CHECKS)
    assert "stand-in" in printed(capsys, notebook.names["check_quadruple"])
    notebook.run(DOUBLE)
    assert "stand-in" not in printed(capsys, notebook.names["check_quadruple"])
    notebook.run(EMPTY_DOUBLE)
    assert "stand-in" in printed(capsys, notebook.names["check_quadruple"])


SHADOWS = "list = [1]; outcome = re = 3; str = 'a'; sum = isinstance = bool = vars = map = 0; dir = len = None"


def test_variables_with_the_names_of_built_ins_or_helpers_do_not_disturb_the_checks(
    notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    checks_with_sum = CHECKS.replace(
        "def check_quadruple():", "def check_quadruple():\n    sum([1])"
    )
    notebook.run(EMPTY_DOUBLE, QUADRUPLE, checks_with_sum, SHADOWS)
    shadowed = dict(notebook.names)
    assert "quadruple passes" in printed(capsys, notebook.names["check_quadruple"])
    with pytest.raises(NotImplementedError, match="double"):
        notebook.names["check_double"]()
    shown = printed(capsys, progress.progress)
    assert "1 of 2 done" in shown
    assert notebook.names == shadowed


def test_student_code_keeps_its_variables(notebook: Notebook) -> None:
    own = "float = 2\ndef double(x):\n    return x * float\n"
    notebook.run(own, QUADRUPLE, CHECKS)
    notebook.names["check_double"]()


def test_code_that_expects_more_of_a_stand_in_gets_a_hint(notebook: Notebook) -> None:
    own = "def double(x, times=3):\n    return times * x\n"
    caller = "def quadruple(x):\n    return double(double(x, times=2), times=2)\n"
    notebook.run(own, caller, CHECKS)
    with pytest.raises(AssertionError, match="This check used a stand-in for `double`"):
        notebook.names["check_quadruple"]()


def test_an_error_in_the_students_code_is_not_blamed_on_a_stand_in(notebook: Notebook) -> None:
    notebook.run(EMPTY_DOUBLE, "def quadruple(x):\n    return double(x) + None\n", CHECKS)
    with pytest.raises(AssertionError, match="NoneType") as failed:
        notebook.names["check_quadruple"]()
    assert "stand-in" not in str(failed.value)


@pytest.mark.parametrize(
    ("earlier", "call", "received"),
    [
        (EMPTY_DOUBLE, "double(None)", "`double` received x: None."),
        (DOUBLE, "double(x.long() + {})", ""),  # the student's own line raises the error
        (DOUBLE, "double((x, None)[1])", "`double` received x: None."),
        (
            "def double(x, n=2):\n    return x.mul(n) if n > 1 else undefined\n",
            "double(x.repeat(2, 1), 1)",
            "`double` received x: a float32 tensor of shape (2, 1), n: 1.",
        ),
        # The value of `n` is no longer the argument.
        (
            "def double(x, n=2):\n    n = n - 1\n    return x + x if n else undefined\n",
            "double(x, 1)",
            "`double` received x: a float32 tensor of shape (1,).",
        ),
        (
            "class double:\n    def __new__(cls, x, *more):\n        return object.__new__(cls) if more else x + x\n"
            "    def twice(self, x):\n        return x * {}\n",
            "double(x, 1).twice([x])",
            "`double.twice` received x: a list.",
        ),
    ],
)
def test_an_error_in_another_exercise_names_the_arguments(
    notebook: Notebook, earlier: str, call: str, received: str
) -> None:
    notebook.run(earlier, f"def quadruple(x):\n    return {call}\n", CHECKS)
    not_allowed.NOT_ALLOWED.clear()
    with pytest.raises(AssertionError, match="3 should give 12; yours raises") as failed:
        notebook.names["check_quadruple"]()
    lines = str(failed.value).split("\n")
    assert [line for line in lines if " received " in line] == [received] * bool(received)


def test_the_exercise_itself_is_never_replaced(notebook: Notebook) -> None:
    notebook.run(EMPTY_DOUBLE, QUADRUPLE, CHECKS)
    with pytest.raises(NotImplementedError, match="double"):
        notebook.names["check_double"]()


def test_a_demonstration_uses_stand_ins(
    notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook.run(EMPTY_DOUBLE, QUADRUPLE, CHECKS)

    def run() -> None:
        with demonstration():
            print(notebook.names["quadruple"](torch.tensor(1)).item())

    assert printed(capsys, run).startswith("4\nUsed a stand-in")


def test_a_demonstration_without_a_stand_in_says_what_it_needs(
    notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook.run(QUADRUPLE.replace("return", 'raise NotImplementedError("quadruple")  #'), CHECKS)

    def run() -> None:
        with demonstration():
            notebook.names["quadruple"](1)

    assert "needs your `quadruple`" in printed(capsys, run)


def test_a_check_that_is_interrupted_counts_as_failed(notebook: Notebook) -> None:
    notebook.run("def double(x):\n    raise KeyboardInterrupt\n", CHECKS)
    with pytest.raises(KeyboardInterrupt):
        notebook.names["check_double"]()
    assert checks.outcome("double") == "the checks did not finish"


def test_running_checks_does_not_change_the_random_state(notebook: Notebook) -> None:
    notebook.run("def double(x):\n    torch.manual_seed(1)\n    return x + x\n", CHECKS)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert checks.outcome("double") == ""
    assert torch.equal(torch.rand(3), expected)


# ---- functions that are not allowed

HELPER = "def _twice(x):\n    return x.mul(2)\n"
BASE = "class mul:\n    __module__ = 'torch'\n"  # imitates a class of torch


def failure(notebook: Notebook, code: str) -> str:
    """Run the check for `double` on this code, and return the message if it fails."""
    notebook.run(code, CHECKS)
    try:
        notebook.names["check_double"]()
    except (checks.CheckFailed, checks.NotFilledIn) as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "code",
    [
        "def double(x):\n    return torch.mul(x, 2)\n",
        "def double(x):\n    return x.mul(2)\n",
        "from torch import mul as f\ndef double(x):\n    return f(x, 2)\n",
        "double = lambda x: (lambda: torch.mul(x, 2))()\n",
        f"{HELPER}def double(x):\n    return _twice(x)\n",
        "class double:\n    def __new__(cls, x):\n        return cls.twice(x)\n"
        "    @classmethod\n    def twice(cls, x):\n        return x.mul(2)\n",
        "def double(x):\n    return 3 * x.mul(1)\n",
        f"{BASE}class double(mul):\n    def __new__(cls, x):\n        return x + x\n",
    ],
)
def test_a_check_first_names_a_function_that_is_not_allowed(notebook: Notebook, code: str) -> None:
    shown = failure(notebook, code)
    assert shown.startswith("This exercise earns no points if your code calls `mul`")
    assert "1 should give 2" not in shown
    assert "Hint" not in shown
    assert checks.outcome("double") == shown


@pytest.mark.parametrize(
    "code",
    [
        DOUBLE,
        "def mul(x):\n    return x + x\ndef double(x):\n    return mul(x)\n",
        "def double(x, mul=2):\n    return x * mul\n",
        "class double:\n    def __new__(cls, x):\n        self = object.__new__(cls)\n"
        "        self.mul = x + x\n        return self.mul\n",
        "class double:\n    def __new__(cls, x):\n        return object.__new__(cls).mul(x)\n"
        "    def mul(self, x):\n        return x + x\n",
        EMPTY_DOUBLE + f"{HELPER}def other(x):\n    return _twice(x)\n",
    ],
)
def test_a_check_says_nothing_about_the_students_own_names(notebook: Notebook, code: str) -> None:
    assert "not allowed" not in failure(notebook, code)


# ---- messages


def test_an_error_in_the_students_code_is_described(notebook: Notebook) -> None:
    notebook.run(DOUBLE, "def quadruple(x):\n    return x.no_such_name\n", CHECKS)
    with pytest.raises(
        AssertionError, match=r"3 should give 12; yours raises AttributeError: .*no_such_name"
    ):
        notebook.names["check_quadruple"]()


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (ValueError("n is 3"), ""),
        (ValueError("wrong"), "your message is 'wrong'"),
        (TypeError("n"), "yours raises TypeError: n"),
        (None, "yours raises nothing"),
    ],
)
def test_a_value_error_must_name_an_argument(error: Exception | None, problem: str) -> None:
    def run() -> None:
        with expecting_value_error("An odd n", "n", "size"):
            if error:
                raise error

    if problem:
        with pytest.raises(AssertionError, match=f"An odd n should raise a ValueError.*{problem}"):
            run()
    else:
        run()


@pytest.mark.parametrize(
    ("own", "described"),
    [("assert False", "AssertionError"), ("assert False, 'x < 0'", "AssertionError: x < 0")],
)
def test_the_students_own_assertions_are_described(
    notebook: Notebook, own: str, described: str
) -> None:
    notebook.run(DOUBLE, f"def quadruple(x):\n    {own}\n", CHECKS)
    expected = f"3 should give 12; yours raises {described}"
    with pytest.raises(AssertionError) as failed:
        notebook.names["check_quadruple"]()
    assert str(failed.value) == expected
    assert checks.outcome("quadruple") == expected
    # The check for `double` has no `expecting`.
    notebook.run(f"def double(x):\n    {own}\n")
    assert checks.outcome("double") == described


def test_a_missing_value_error_is_described_without_advice_on_the_error() -> None:
    with (
        pytest.raises(
            AssertionError, match=r"names n or size; yours raises RuntimeError.*of size 3$"
        ),
        expecting_value_error("An odd n", "n", "size"),
    ):
        torch.zeros(3).reshape(2, 2)


def test_an_assertion_instead_of_a_value_error_is_described(notebook: Notebook) -> None:
    notebook.run("def odd(n):\n    assert n % 2\n")
    with (
        pytest.raises(
            AssertionError, match="2 should raise a ValueError that names n; yours raises Assertion"
        ),
        expecting_value_error("2", "n"),
    ):
        notebook.names["odd"](2)


def test_an_assertion_of_the_check_keeps_its_message() -> None:
    with pytest.raises(AssertionError) as failed, expecting("1 should work"):
        raise AssertionError("1 should give 2")
    assert str(failed.value) == "1 should give 2"


def test_advice_on_a_common_error_replaces_where_to_look() -> None:
    with (
        pytest.raises(AssertionError, match="invalid literal") as failed,
        expecting("1 should work", "Check the axes."),
    ):
        int("one")
    assert str(failed.value).endswith("\nCheck the axes.")
    with pytest.raises(AssertionError) as failed, expecting("1 should work", "Check the axes."):
        raise NameError("name 'pe' is not defined")
    error = "1 should work; yours raises NameError: name 'pe' is not defined"
    assert str(failed.value) == f"{error}\nCheck the spelling, and whether `self.` is missing."


def test_a_stub_is_not_described_as_an_error() -> None:
    with pytest.raises(NotImplementedError), expecting("1 should give 2"):
        raise NotImplementedError("double")


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        (EMPTY_QUADRUPLE, ["✗ `quadruple` is not filled in."]),
        (
            "def quadruple(x):\n    return x\n",
            ["✗ 3 should give 12; yours gives 3"],
        ),
        (
            "def times(x):\n    return 4 * y\ndef quadruple(x):\n    return times(x)\n",
            [
                "quadruple, line 4: return times(x)",
                "times, line 2: return 4 * y",
                "✗ 3 should give 12; yours raises NameError: name 'y' is not defined",
                "Check the spelling, and whether `self.` is missing.",
            ],
        ),
        (
            "def quadruple(x):\n    return 12 if x == 3 else y\n",
            [
                "quadruple, line 2: return 12 if x == 3 else y",
                "✗ NameError: name 'y' is not defined",
                "Check the spelling, and whether `self.` is missing.",
            ],
        ),
        (
            "class quadruple(torch.nn.Module):\n    pass\n",
            [
                "✗ 3 should give 12; yours raises TypeError: "
                "quadruple.__init__() takes 1 positional argument but 2 were given"
            ],
        ),
        (
            "def quadruple(x):\n    return (4 * x,)\n",
            [
                "✗ AttributeError: 'tuple' object has no attribute 'item'",
                "The check raised this error when it called your code or used its result. Compare names, "
                "arguments, types and dtypes with the docstring.",
            ],
        ),
    ],
)
def test_jupyter_shows_the_message_and_only_lines_of_the_student(
    notebook: Notebook, capsys: pytest.CaptureFixture[str], source: str, shown: list[str]
) -> None:
    notebook.run(DOUBLE, CHECKS, source)
    without_history = Config({"HistoryManager": {"enabled": False}})
    shell: Any = InteractiveShell(  # type: ignore[no-untyped-call]
        user_module=sys.modules["__main__"], config=without_history
    )
    assert printed(capsys, lambda: shell.run_cell("check_quadruple()")) == "\n".join(shown) + "\n"


def test_fixed_numbers_and_filled_modules_do_not_depend_on_the_seed() -> None:
    torch.manual_seed(1)
    first = inputs.filled(torch.nn.Linear(3, 2)), inputs.fixed_numbers(2, 3)
    torch.manual_seed(2)
    second = inputs.filled(torch.nn.Linear(3, 2)), inputs.fixed_numbers(2, 3)
    assert torch.equal(first[0].weight, second[0].weight)
    assert torch.equal(first[1], second[1])
    assert first[1].unique().numel() == 6


def test_filling_a_module_does_not_depend_on_second_names() -> None:
    linear = torch.nn.Linear(3, 2)
    module = torch.nn.ModuleDict({"parts": torch.nn.ModuleDict({"first": linear}), "out": linear})
    plain = torch.nn.ModuleDict({"out": torch.nn.Linear(3, 2)})
    inputs.filled(module), inputs.filled(plain)
    assert torch.equal(linear.weight, plain["out"].weight)  # type: ignore[arg-type]


# ---- hints


def record(notebook: Notebook, solution: str = QUADRUPLE, **mistakes: str) -> None:
    """Record the outputs of wrong versions of `quadruple`, each with the sentence that explains the mistake."""
    check = notebook.names["check_quadruple"].__wrapped__
    calls: list[Any] = []

    def numbers(source: str) -> list[list[int]]:
        notebook.run(source)
        seen = hints.observe("quadruple", check, [])
        first = len(calls)
        calls.extend(call for statement in seen for call in statement)
        ends = itertools.accumulate(map(len, seen), initial=first)
        return [[*range(start, end)] for start, end in itertools.pairwise(ends)]

    hints.OUTPUTS["quadruple"] = {
        "methods": [],
        "correct": numbers(solution),
        "mistakes": [[sentence, numbers(source)] for sentence, source in mistakes.items()],
        "calls": calls,
    }


def message(notebook: Notebook, source: str) -> str:
    notebook.run(source)
    with pytest.raises(AssertionError) as failed:
        notebook.names["check_quadruple"]()
    return str(failed.value)


SQUARED = "def quadruple(x):\n    return x * x\n"
HALVED = "def quadruple(x):\n    return x / 2\n"


def test_a_known_mistake_is_named_after_the_message(notebook: Notebook) -> None:
    notebook.run(DOUBLE, CHECKS)
    record(notebook, Squared=SQUARED, Halved=HALVED)
    other_style = "def quadruple(number):\n    return number.square() * 1.0001\n"
    shown = message(notebook, other_style)
    assert shown.startswith("3 should give 12; yours gives 9")
    assert shown.endswith("Hint: Squared")


def test_an_unknown_mistake_is_not_named(notebook: Notebook) -> None:
    notebook.run(DOUBLE, CHECKS)
    record(notebook, Squared=SQUARED, Halved=HALVED)
    # For the first input, the result is 9, as for the mistake `Squared`; for the second input, the two results differ.
    assert "Hint" not in message(notebook, "def quadruple(x):\n    return x * 3\n")


@pytest.mark.parametrize(
    ("limit", "hint"),
    [("x < 1", "Squared"), ("x > 1", ""), ("x < 9", ""), ("False", "Squared")],
)
def test_a_mistake_is_named_although_another_part_raises_an_error(
    notebook: Notebook, limit: str, hint: str
) -> None:
    """The draft raises an error for some inputs. No known mistake explains an error on the first input, so it gets no hint."""
    notebook.run(DOUBLE, CHECKS)
    record(notebook, Squared=SQUARED, Halved=HALVED)
    draft = f"def quadruple(x):\n    if {limit}:\n        raise RuntimeError\n    return x * x\n"
    assert message(notebook, draft).partition("\n\nHint: ")[2] == hint


def test_an_error_that_the_solution_raises_as_well_is_compared(notebook: Notebook) -> None:
    checks_ = CHECKS.replace("quadruple(torch.tensor([0.5]))", "quadruple(torch.tensor([0.5, 1]))")
    notebook.run(DOUBLE, checks_)
    solution = "def quadruple(x):\n    return torch.tensor(x.item() * 4)\n"
    wrong = "def quadruple(x):\n    return x[0] * x[0]\n"
    record(notebook, solution, Squared=wrong)
    raising = "def quadruple(x):\n    return torch.tensor(x.item() ** 2)\n"
    assert "Hint" not in message(notebook, raising)


def test_two_matching_mistakes_are_not_named(notebook: Notebook) -> None:
    notebook.run(DOUBLE, CHECKS)
    record(notebook, Squared=SQUARED, Power="def quadruple(x):\n    return x**2\n")
    assert "Hint" not in message(notebook, SQUARED)


def test_random_results_match_only_random_results(notebook: Notebook) -> None:
    notebook.run(DOUBLE, CHECKS)
    record(notebook, Random="def quadruple(x):\n    return torch.rand(1)\n")
    assert "Hint: Random" in message(notebook, "def quadruple(x):\n    return torch.randn(1)\n")
    assert "Hint" not in message(notebook, SQUARED)


def test_a_changed_argument_is_part_of_the_result(notebook: Notebook) -> None:
    notebook.run(DOUBLE, CHECKS)
    record(notebook, InPlace="def quadruple(x):\n    return x.mul_(3)\n")
    assert "Hint" not in message(notebook, "def quadruple(x):\n    return x * 3\n")
    assert "Hint: InPlace" in message(notebook, "def quadruple(x):\n    x *= 3\n    return x\n")


def test_the_length_of_an_argument_is_part_of_the_result() -> None:
    class Cache:
        """A class whose repr contains a memory address."""

        n = 0

        def __len__(self) -> int:
            return self.n

    def append(cache: Cache) -> int:
        cache.n += 1
        return 0

    calls: list[Any] = []
    hints._recorded(append, [], calls, 0)(Cache())
    assert calls == [[["int", "0"], [["Cache", "1"]]]]


def test_the_lists_in_a_model_are_part_of_the_result() -> None:
    class Recorder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[str] = []
            self._hidden = [0]

        def forward(self, x: int) -> int:
            self.seen.append("forward")
            return x

    calls: list[Any] = []
    hints._recorded(lambda model: model(0), [], calls, 0)(Recorder())
    assert calls == [[["int", "0"], [["True", [["str", "forward"]]]]]]


# ---- progress


def test_progress_shows_each_state(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.run(EMPTY_DOUBLE, "def quadruple(x):\n    return x\n", CHECKS)
    shown = printed(capsys, progress.progress)
    assert "0 of 2 done, about 35 minutes left" in shown
    assert "· double     not started" in shown
    assert "✗ quadruple  failing      3 should give 12; yours gives 3" in shown
    notebook.run(DOUBLE, QUADRUPLE)
    shown = printed(capsys, progress.progress)
    assert "2 of 2 done\n" in shown
    assert "minutes left" not in shown


def test_progress_in_html_escapes_text(notebook: Notebook) -> None:
    notebook.run("def double(x):\n    raise KeyError('<b>')\n", CHECKS)
    table = progress.ProgressTable([progress._progress_row(name) for name in EXERCISES])
    page = table._repr_html_()
    assert "More &lt;numbers&gt;: 0 of 1 done, about 25 minutes left" in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
