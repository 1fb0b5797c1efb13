"""Test that the visible checks accept correct answers that register modules twice, add parameters or copy the model."""

from __future__ import annotations

import contextlib
import copy
import io
import operator
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from autograder.course import config as courses
from autograder.execution.catalogue import known_mistakes
from autograder.release.visible_checks import Notebook
from autograder.submissions.cell_reader import read_cells
from tests.conftest import ROOT

COURSE = courses.load(ROOT)
DAYS = {
    "day1": ["MultiHeadAttention", "LayerNorm", "FeedForward", "EncoderLayer", "DecoderLayer"],
    "day2": [
        *(
            "CausalSelfAttention",
            "GPTBlock",
            "GPT",
            "RelativeSelfAttention",
            "PatchEmbedding",
            "ViT",
        ),
        *("DiTBlock", "RecurrentAttention", "DecisionTransformer"),
    ],
}
MODULES = [(day, name) for day, names in DAYS.items() for name in names]
STYLES = [
    (day, path) for day in DAYS for path in sorted((ROOT / "tests" / "styles" / day).glob("*.py"))
]


@pytest.fixture(scope="module")
def notebooks() -> Iterator[Callable[[str], Notebook]]:
    """Return a function that opens a day's notebook with the solutions and visible checks."""
    main = sys.modules["__main__"]
    opened: dict[str, Notebook] = {}

    def open_day(day: str) -> Notebook:
        if day not in opened:
            with contextlib.redirect_stdout(io.StringIO()):
                opened[day] = Notebook(COURSE.day(day))
        sys.modules["__main__"] = opened[day].module
        return opened[day]

    yield open_day
    sys.modules["__main__"] = main


def check(notebook: Notebook, exercise: str, **answers: Any) -> None:
    """Run an exercise's visible check with these answers in place of those in the notebook."""
    names = vars(notebook.module)
    before = {name: names[name] for name in answers}
    names.update(answers)
    try:
        names[f"check_{exercise}"].__wrapped__()
    finally:
        names.update(before)


def with_second_names(kind: Any) -> type[nn.Module]:
    """Return a subclass that registers every submodule twice: first under a new name, then under its own name."""

    class Renamed(kind):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            own = dict(self._modules)
            self._modules.clear()
            self.parts = nn.ModuleDict({f"part_{i}": part for i, part in enumerate(own.values())})
            self._modules.update(own)

    return Renamed


@pytest.mark.parametrize(
    "style",
    [pytest.param(path, id=f"{day}-{path.stem}") for day, path in STYLES],
)
def test_solutions_in_other_styles_pass(notebooks: Callable[[str], Notebook], style: Path) -> None:
    day = COURSE.day(style.parent.name)
    notebooks(day.name)  # restores the main module at the end
    with contextlib.redirect_stdout(io.StringIO()):
        notebook = Notebook(day)
        names = vars(notebook.module)
        checks = {name: names[f"check_{name}"].__wrapped__ for name in day.names}
        for number, cell in enumerate(read_cells(style.read_bytes(), style.name)[0]):
            if cell.kind == "code" and not cell.source.startswith("%"):
                notebook.run(cell.source, f"cell {number}")
        for check_of_exercise in checks.values():
            check_of_exercise()


@pytest.mark.parametrize(("day", "exercise"), MODULES)
def test_parameters_may_have_second_names(
    notebooks: Callable[[str], Notebook], day: str, exercise: str
) -> None:
    notebook = notebooks(day)
    names = vars(notebook.module)
    check(notebook, exercise, **{n: with_second_names(names[n]) for n in DAYS[day]})


def test_layers_in_another_container_are_named(notebooks: Callable[[str], Notebook]) -> None:
    notebook = notebooks("day1")
    kind: Any = notebook.module.Transformer

    class WithDict(kind):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            layers: nn.ModuleList = super().__getattr__("encoder")
            self.encoder = nn.ModuleDict({str(i): layer for i, layer in enumerate(layers)})

    with pytest.raises(AssertionError, match=r"encoder should be an nn\.ModuleList .* ModuleDict"):
        check(notebook, "Transformer", Transformer=WithDict)


@pytest.mark.parametrize(
    ("day", "exercise", "path", "other"),
    [
        ("day1", "MultiHeadAttention", "value", "key"),
        ("day1", "MultiHeadAttention", "out.bias", "query.bias"),
        ("day2", "GPTBlock", "norm2", "norm1"),
        ("day2", "RelativeSelfAttention", "key", "query"),
        ("day2", "RelativeSelfAttention", "value.bias", "out.bias"),
        ("day2", "ViT", "blocks.1", "blocks.0"),
        ("day2", "ViT", "norm", "blocks.1.norm1"),
        ("day2", "RecurrentAttention", "out", "value"),
        ("day2", "DecisionTransformer", "blocks.1", "blocks.0"),
        ("day2", "DecisionTransformer", "norm", "blocks.0.norm1"),
    ],
)
def test_shared_parameters_are_found(
    notebooks: Callable[[str], Notebook], day: str, exercise: str, path: str, other: str
) -> None:
    notebook = notebooks(day)
    kind: Any = vars(notebook.module)[exercise]
    parent, _, name = path.rpartition(".")

    class Shared(kind):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            if path != "blocks.1" or len(self.blocks) > 1:
                setattr(self.get_submodule(parent), name, operator.attrgetter(other)(self))

    with pytest.raises(AssertionError, match="share parameters"):
        check(notebook, exercise, **{exercise: Shared})


@pytest.mark.parametrize(
    ("exercise", "mistake", "message"),
    [
        (
            "EncoderLayer",
            "attention pre-norm, feed-forward network post-norm",
            "norm1 returns the same vector at every position",
        ),
        (
            "DecoderLayer",
            "extra norm on the memory",
            "should match that of nn.TransformerDecoderLayer",
        ),
    ],
)
def test_a_norm_does_not_hide_a_changed_position(
    notebooks: Callable[[str], Notebook], exercise: str, mistake: str, message: str
) -> None:
    """If a check changed a position by a constant, a norm would hide this, and the check would report a missing connection."""
    notebook = notebooks("day1")
    (source,) = [
        known.source
        for known in known_mistakes(COURSE.day("day1"))[exercise]
        if known.name == mistake
    ]
    own = vars(notebook.module)[exercise]
    notebook.run(source, exercise)
    wrong = vars(notebook.module)[exercise]
    vars(notebook.module)[exercise] = own
    with pytest.raises(AssertionError, match=message):
        check(notebook, exercise, **{exercise: wrong})


@pytest.mark.parametrize("exercise", ["RelativeSelfAttention", "RecurrentAttention"])
def test_a_module_may_have_further_parameters(
    notebooks: Callable[[str], Notebook], exercise: str
) -> None:
    notebook = notebooks("day2")
    kind: Any = vars(notebook.module)[exercise]

    class Larger(kind):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.unused = nn.Parameter(torch.zeros(2))

    check(notebook, exercise, **{exercise: Larger})


@pytest.mark.parametrize(("day", "exercise"), [("day1", "greedy_decode"), ("day2", "generate")])
def test_decoding_may_use_a_copy_of_the_model(
    notebooks: Callable[[str], Notebook], day: str, exercise: str
) -> None:
    notebook = notebooks(day)
    solution = vars(notebook.module)[exercise]

    def decode_with_copy(model: nn.Module, *args: Any, **options: Any) -> Any:
        return solution(copy.deepcopy(model).eval(), *args, **options)

    check(notebook, exercise, **{exercise: decode_with_copy})


@pytest.mark.parametrize(
    ("day", "exercise"), [("day1", "greedy_decode"), ("day2", "generate"), ("day2", "guided_noise")]
)
def test_the_model_has_a_parameter(
    notebooks: Callable[[str], Notebook], day: str, exercise: str
) -> None:
    """Many programs find the device of a model with `next(model.parameters()).device`."""
    notebook = notebooks(day)
    solution = vars(notebook.module)[exercise]

    def call_on_device(model: nn.Module, *args: Any, **options: Any) -> Any:
        model.to(next(model.parameters()).device)
        return solution(model, *args, **options)

    check(notebook, exercise, **{exercise: call_on_device})


def test_norms_with_parameters_in_a_dit_block_are_found(
    notebooks: Callable[[str], Notebook],
) -> None:
    notebook = notebooks("day2")
    kind: Any = vars(notebook.module)["DiTBlock"]

    class Larger(kind):  # type: ignore[misc]
        def __init__(self, d_model: int, *args: Any) -> None:
            super().__init__(d_model, *args)
            self.norm = self.other = nn.LayerNorm(d_model, eps=1e-6)

    with pytest.raises(AssertionError, match=r"your block has parameters in .*'norm'"):
        check(notebook, "DiTBlock", DiTBlock=Larger)


@pytest.mark.parametrize(("day", "exercise"), [("day1", "sequence_loss"), ("day2", "patchify")])
def test_variables_may_have_the_names_of_built_ins_and_helpers(
    day: str,
    exercise: str,
    notebooks: Callable[[str], Notebook],
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = vars(notebooks(day).module)
    shadows = ("bool", "list", "str", "sum", "isinstance", "outcome", "results", "re", "zlib")
    before = {name: names[name] for name in shadows if name in names}
    own = dict(names)
    names["HELPERS"].update(before)  # as `load_material` does
    names.update(dict.fromkeys(shadows, 1))
    shadowed = dict(names)
    try:
        names[f"check_{exercise}"]()
        assert names == shadowed
    finally:
        for name in shadows:
            names.pop(name, None)
        names.update(before)
        names["HELPERS"].clear()
    assert names == own
    assert "all visible checks pass" in capsys.readouterr().out


@pytest.mark.parametrize("day", DAYS)
def test_no_solution_mentions_what_its_exercise_forbids(
    notebooks: Callable[[str], Notebook], day: str
) -> None:
    names, exercises = vars(notebooks(day).module), COURSE.day(day).exercises
    names["NOT_ALLOWED"].update({e.name: frozenset(e.forbidden.names) for e in exercises})
    found = {exercise.name: names["not_allowed"](exercise.name) for exercise in exercises}
    assert not any(found.values()), found
