"""Test the notebook built for a day, and the checks that keep solutions and hidden tests out of the release."""

from __future__ import annotations

import ast
import base64
import html
import importlib
import pkgutil
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode, v4
from nbgrader.utils import compute_checksum

from autograder.course import config as courses
from autograder.course.config import CourseError, Day, Exercise
from autograder.course.provided import without_chapter_imports, without_guard
from autograder.execution.catalogue import known_mistakes
from autograder.protocol.limits import Limits
from autograder.release import build, helper_cells, notebook, texts
from autograder.release.notebook import day_texts, solution_notebook
from tests.conftest import ROOT, with_cells

COURSE = courses.load(ROOT)

GUARDED = '''
if __name__ == "__main__":
    # A comment, and strings whose lines begin in any column.
    plain = """first
    second
third
        fourth"""
    number = 2
    filled = f"""{number} at once
    {number + 1} and
        {[
            number,
        ]}
    end"""

    def doubled(values):
        """Not part of a cell: a docstring
        of two lines."""
        return [
            2 * value  # deep inside
            for value in values
        ]

    result = doubled([number, 5])
'''

CHAPTER = '''
# %% [markdown]
# # A chapter

# %%
import math

from solutions.opening import demonstration

# %% [markdown]
# ## `half`

# %%
def half(x):
    """Return half of x."""
    ### BEGIN SOLUTION
    return math.fsum([x, 0]) / 2
    ### END SOLUTION


# %%
if __name__ == "__main__":

    def check_half():
        assert half(4) == 2, "half of 4 should be 2"

    check_half()

# %% [markdown]
# ## What comes after

# %%
if __name__ == "__main__":
    with demonstration():
        print(half(3))
'''


@pytest.fixture(scope="module")
def release() -> NotebookNode:
    file = ROOT / "assignments" / "day1" / "day1.ipynb"
    notebook: NotebookNode = nbformat.read(file, as_version=4)
    return notebook


def sources(notebook: NotebookNode) -> dict[str, str]:
    return {cell.id: cell.source for cell in notebook.cells}


def day_of(folder: Path, chapter: str) -> Day:
    """Return a course day that has one chapter and one exercise."""
    (folder / "solutions" / "day1").mkdir(parents=True, exist_ok=True)
    for name in ("opening.py", "closing.py", "day1/requirements.txt"):
        text = (ROOT / "solutions" / name).read_text(encoding="utf-8")
        (folder / "solutions" / name).write_text(text, encoding="utf-8")
    (folder / "solutions" / "day1" / "halves.py").write_text(chapter, encoding="utf-8")
    exercise = Exercise("half", "halves", 3, (), Limits(1, 1, 10**9))
    return Day(folder, "day1", "A day", (exercise,), chapter_order=("halves",))


# ---- cells


def test_a_cell_runs_the_same_without_its_main_guard() -> None:
    guarded: dict[str, object] = {"__name__": "__main__"}
    exec(GUARDED, guarded)
    shown = without_guard(GUARDED)
    plain: dict[str, object] = {}
    exec(shown, plain)
    for name in ("plain", "filled", "result"):
        assert plain[name] == guarded[name]
    assert shown.startswith("# A comment")
    assert "\nnumber = 2\n" in shown
    assert "\ndef doubled(values):\n" in shown


def test_imports_between_chapters_are_removed() -> None:
    cell = (
        "import math\n\nfrom torch import Tensor\n\nfrom solutions.opening import demonstration\n"
        "from solutions.day1.masking import (\n    causal_mask,\n    padding_mask,\n)\n\nsize = 3\n"
    )
    shown = without_chapter_imports(cell)
    assert [line for line in shown.split("\n") if line] == [
        "import math",
        "from torch import Tensor",
        "size = 3",
    ]


@pytest.mark.slow
def test_the_notebook_does_not_import_chapters(solution: NotebookNode) -> None:
    assert not [cell.id for cell in solution.cells if re.search(r"^\s*from solutions", cell.source)]


def test_a_new_cell_does_not_change_other_cells(tmp_path: Path) -> None:
    before = sources(solution_notebook(day_of(tmp_path, CHAPTER)))
    more = CHAPTER.replace(
        "# %% [markdown]\n# ## What", "# %% [markdown]\n# A hint.\n\n# %% [markdown]\n# ## What"
    )
    after = sources(solution_notebook(day_of(tmp_path, more)))
    assert {id_: after.get(id_) for id_ in before} == before
    assert [after[id_] for id_ in set(after) - set(before)] == ["A hint."]


def test_ids_are_unique_and_the_notebook_is_valid(solution: NotebookNode) -> None:
    nbformat.validate(solution)
    assert (solution.nbformat, solution.nbformat_minor) == (4, 5)
    assert len(sources(solution)) == len(solution.cells)


def test_only_stubs_and_checks_have_nbgrader_metadata(solution: NotebookNode, day1: Day) -> None:
    known = {c.id: c.metadata.nbgrader for c in solution.cells if "nbgrader" in c.metadata}
    assert list(known) == [id_ for name in day1.names for id_ in (name, f"check_{name}")]
    for exercise in day1.exercises:
        stub, checks = known[exercise.name], known[f"check_{exercise.name}"]
        assert (stub.solution, stub.grade, stub.locked) == (True, False, False)
        assert (checks.solution, checks.grade, checks.locked) == (False, True, True)
        assert checks.points == exercise.points
    assert {id_: mark.grade_id for id_, mark in known.items()} == {id_: id_ for id_ in known}


def test_running_all_cells_continues_after_a_failed_check() -> None:
    failing = notebook.nbgrader_cell("assert False", "check_softmax", points=1.0)
    written = v4.new_notebook(cells=[failing, v4.new_code_cell("print('on')")])
    NotebookClient(written, timeout=60).execute()
    check, after = written.cells
    assert check.outputs[0].output_type == "error"
    assert after.outputs[0].text == "on\n"


# ---- figures

SVG = '<svg xmlns="http://www.w3.org/2000/svg"><text>a → b</text></svg>'


def test_a_figure_is_embedded_with_its_text(tmp_path: Path) -> None:
    (tmp_path / "a.svg").write_text(SVG, encoding="utf-8")
    shown = notebook.embed('Before.\n\n![One "a",\ntwo lines](a.svg)\n\nAfter.', tmp_path / "x.py")
    found = re.fullmatch(
        r'Before\.\n\n<img src="data:image/svg\+xml;base64,(.*)" alt="(.*)">\n\nAfter\.', shown
    )
    assert found
    assert base64.b64decode(found[1]).decode() == SVG
    assert html.unescape(found[2]) == 'One "a", two lines'


@pytest.mark.parametrize(
    ("name", "content", "element"),
    [
        ("a.gif", b"GIF89a and more", '<img src="data:image/gif;base64,{}" alt="A &amp; B">'),
        (
            "a.wav",
            b"RIFF\x04\0\0\0WAVE",
            '<audio controls src="data:audio/wav;base64,{}">A &amp; B</audio>',
        ),
    ],
)
def test_an_animation_and_a_recording_are_embedded(
    name: str, content: bytes, element: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    expected = element.format(base64.b64encode(content).decode())
    assert notebook.embed(f"![A & B]({name})", tmp_path / "x.py") == expected


def test_a_figure_on_the_web_stays_a_link(tmp_path: Path) -> None:
    link = "![a badge](https://example.org/badge.svg)"
    assert notebook.embed(link, tmp_path / "x.py") == link


@pytest.mark.parametrize(
    ("link", "content", "problem"),
    [
        ("![a](b.svg)", SVG, "b.svg cannot be read"),
        ("![ \n](a.svg)", SVG, "a.svg has no alternative text"),
        ("![a](a.svg)", "<svg>", "a.svg is not an SVG image"),
        ("![a](a.svg)", "<html/>", "a.svg is not an SVG image"),
        ("![a](a.svg)", "PNG", "a.svg is not an SVG image"),
        ("![a](a.gif)", SVG, "a.gif is not a GIF image"),
        ("![a](a.wav)", "RIFF", "a.wav is not a WAV recording"),
        ("![a](a.bmp)", "BM", "a.bmp must be one of .svg, .gif, .wav"),
    ],
)
def test_an_invalid_figure_is_refused(
    link: str, content: str, problem: str, tmp_path: Path
) -> None:
    for name in ("a.svg", "a.gif", "a.wav", "a.bmp"):
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(CourseError, match=re.escape(problem)):
        notebook.embed(link, tmp_path / "x.py")


@pytest.mark.parametrize("kind", ["tree", "blob"])
def test_a_badge_opens_the_notebook_in_colab(kind: str, tmp_path: Path) -> None:
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell("# Day 1")])
    url = f"https://github.com/uni/course/{kind}/main/2026/assignments/"
    build.add_badge(notebook, day_of(tmp_path, CHAPTER), url)
    page = "github/uni/course/blob/main/2026/assignments/day1/day1.ipynb"
    assert notebook.cells[0].source.startswith("# Day 1\n\n[![Open in Colab](")
    assert f"](https://colab.research.google.com/{page})" in notebook.cells[0].source


def test_nbgitpuller_opens_the_notebook_in_the_repository(tmp_path: Path) -> None:
    url = "https://github.com/uni/course/tree/main/2026/assignments"
    link = urlsplit(build.pull_link(day_of(tmp_path, CHAPTER), url))
    assert link.path == "/hub/user-redirect/git-pull"
    assert parse_qs(link.query) == {
        "repo": ["https://github.com/uni/course"],
        "branch": ["main"],
        "urlpath": ["lab/tree/course/2026/assignments/day1/day1.ipynb"],
    }


@pytest.mark.parametrize("url", ["https://example.org/a", "https://github.com/uni/course", "main"])
def test_colab_opens_only_folders_on_github(url: str, tmp_path: Path) -> None:
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell("# Day 1")])
    with pytest.raises(CourseError, match="not the address of a folder on GitHub"):
        build.add_badge(notebook, day_of(tmp_path, CHAPTER), url)


@pytest.mark.parametrize("day", ["day1", "day2"])
def test_the_figures_are_up_to_date(day: str) -> None:
    package = importlib.import_module(f"solutions.{day}.figures")
    drawn: dict[str, str] = {}
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        draw = importlib.import_module(module.name).figure
        drawn |= {name: function().svg() for name, function in draw.drawn_by.items()}
    files = {f.stem: f.read_text("utf-8") for f in Path(package.__path__[0]).glob("*.svg")}
    stale = [name for name in files | drawn if files.get(name) != drawn.get(name)]
    assert not stale, f"the figures {stale} are outdated: run the modules in {package.__name__}"


def test_a_day_may_have_its_own_opening_and_closing(tmp_path: Path) -> None:
    day = day_of(tmp_path, CHAPTER)
    for name, heading in (("opening", "Why"), ("closing", "Goodbye")):
        (tmp_path / "solutions" / "day1" / f"{name}.py").write_text(
            f"# %% [markdown]\n# ## {heading}\n", encoding="utf-8"
        )
    ids = [cell.id for cell in solution_notebook(day).cells]
    assert ids[:3] == ["title-1", "why-1", "install-1"]
    assert ids[-3:] == ["goodbye-1", "your-progress-1", "your-progress-2"]


def test_the_notebook_installs_packages_by_name(tmp_path: Path) -> None:
    day = day_of(tmp_path, CHAPTER)
    lines = [
        "# data",
        "torch~=2.1",
        "numpy != 2.0  # a comment",
        "x.y_z[a]>=1; python_version > '3'",
    ]
    (tmp_path / "solutions" / "day1" / "requirements.txt").write_text("\n".join(lines))
    install = next(cell for cell in solution_notebook(day).cells if cell.id == "install-1")
    assert "['torch', 'numpy', 'x.y_z']" in install.source


@pytest.mark.parametrize("title", [r"The $\xi$ of $\underline{x}$", r"$\nabla$", 'In "quotes"'])
def test_any_chapter_title_is_valid_in_the_notebook(title: str, tmp_path: Path) -> None:
    day = day_of(tmp_path, CHAPTER.replace("# # A chapter", f"# # {title}"))
    source = helper_cells.provided_cell(day, {})
    ast.parse(source)
    _, material = helper_cells.unpacked(source)
    assert {chapter for chapter, _, _ in material["exercises"].values()} == {title}


# ---- the release


@pytest.mark.parametrize("name", COURSE.days)
def test_the_release_is_up_to_date(name: str) -> None:
    day = COURSE.day(name)
    release = nbformat.read(ROOT / "assignments" / name / f"{name}.ipynb", as_version=4)
    seen = sources(release)
    (provided,) = (source for source in seen.values() if helper_cells.unpacked(source)[0])
    outputs = helper_cells.recorded_outputs(provided, day)
    cells = [cell for chapter in day.chapters for cell in chapter.cells]
    stubs = {cell.name: cell.stub for cell in cells if cell.role == "exercise"}
    expected = {
        cell.id: stubs[cell.id]
        if cell.id in stubs
        else re.sub(r"\n### BEGIN HIDDEN TESTS.*", "", cell.source, flags=re.DOTALL)
        for cell in solution_notebook(day, outputs).cells
    }
    changed = [id_ for id_ in expected | seen if expected.get(id_) != seen.get(id_)]
    assert not changed, f"these cells changed since the last `autograder build {name}`: {changed}"
    assert list(seen) == list(expected)
    readme = day_texts(day).fill(notebook.readme(day), "README.md")
    files = {
        "README.md": readme,
        "requirements.txt": notebook.requirements(day),
        "AGENTS.md": texts.agents(day),
    }
    for file, text in files.items():
        assert (ROOT / "assignments" / name / file).read_text("utf-8") == text


def test_the_release_has_no_outputs_and_leaks_nothing(
    release: NotebookNode, solution: NotebookNode, day1: Day
) -> None:
    assert not [cell.id for cell in release.cells if cell.get("outputs")]
    build._check_release(release, solution, day1)


def first_line(file: Path, start: str) -> str:
    """Find the first line that starts with `start` and has more than 50 characters."""
    lines = file.read_text(encoding="utf-8").split("\n")
    return next(line for line in lines if line.strip().startswith(start) and len(line) > 50)


def a_solution_line() -> str:
    return "    exponentials = torch.exp(shifted)"


def a_hidden_assertion() -> str:
    return first_line(ROOT / "graders/day1/test_layers.py", "assert ")


def a_hidden_sentence() -> str:
    return first_line(ROOT / "graders/day1/test_attention.py", '"""')


def a_named_mistake() -> str:
    return known_mistakes(courses.load(ROOT).day("day1"))["padding_mask"][0].sentence


@pytest.mark.parametrize(
    ("cell", "leak"),
    [
        ("softmax-3", a_solution_line),
        ("attention-1", a_solution_line),
        ("check_LayerNorm", a_hidden_assertion),
        ("check_softmax", a_hidden_sentence),
        ("masking-1", a_named_mistake),
    ],
)
def test_a_leaked_line_is_refused(
    cell: str, leak: Callable[[], str], release: NotebookNode, solution: NotebookNode, day1: Day
) -> None:
    line = leak()
    leaking = with_cells(release, {cell: f"{sources(release)[cell]}\n    {line.strip()}"})
    with pytest.raises(CourseError) as refused:
        build._check_release(leaking, solution, day1)
    assert f"cell {cell}:" in str(refused.value)
    assert line.strip() in str(refused.value)


@pytest.mark.parametrize("marker", ["### BEGIN SOLUTION", "### BEGIN HIDDEN TESTS"])
def test_a_remaining_marker_is_refused(
    marker: str, release: NotebookNode, solution: NotebookNode, day1: Day
) -> None:
    left = with_cells(release, {"attention-1": marker})
    with pytest.raises(CourseError, match="the release contains a solution or hidden tests"):
        build._check_release(left, solution, day1)


@pytest.mark.parametrize("again", ["SIZE = 4", "def SIZE(): ...", "import math\nclass SIZE: ..."])
def test_a_given_name_is_defined_once(again: str, day1: Day) -> None:
    cells = [v4.new_code_cell("SIZE = 3", id="one"), v4.new_code_cell(again, id="two")]
    with pytest.raises(CourseError, match="cell two: 'SIZE' is already defined in cell one"):
        build._check_given_names(v4.new_notebook(cells=cells), day1)


def test_demonstrations_and_imports_may_reuse_a_name(day1: Day) -> None:
    cells = [
        v4.new_code_cell("import math\n\nSIZE = 3", id="one"),
        v4.new_code_cell("import math\n\nwith open('x') as file:\n    SIZE = 4", id="two"),
    ]
    build._check_given_names(v4.new_notebook(cells=cells), day1)


@pytest.mark.parametrize("day", ["day1", "day2"])
def test_nbgraders_checksums_in_the_release_are_current(day: str) -> None:
    """If a cell's checksum is outdated, nbgrader tells the student that the cell has changed."""
    release = nbformat.read(ROOT / "assignments" / day / f"{day}.ipynb", as_version=4)
    cells = [cell for cell in release.cells if "checksum" in cell.metadata.get("nbgrader", {})]
    assert cells
    stale = [c.id for c in cells if c.metadata.nbgrader.checksum != compute_checksum(c)]
    assert stale == []


def test_a_failure_of_nbgrader_is_reported_with_its_log(tmp_path: Path, day1: Day) -> None:
    cell = v4.new_code_cell("", metadata={"nbgrader": {"grade_id": "a", "solution": True}})
    build._write_source(v4.new_notebook(cells=[cell]), day1, tmp_path / "source" / "day1")
    with pytest.raises(CourseError, match=r"(?s)nbgrader failed .*nbgrader metadata format"):
        build._generate_assignment(day1, tmp_path)


def test_an_invalid_configuration_of_nbgrader_is_reported(tmp_path: Path, day1: Day) -> None:
    (tmp_path / "nbgrader_config.py").write_text("c = (")
    with pytest.raises(CourseError, match=r"(?s)nbgrader failed .*SyntaxError"):
        build._generate_assignment(replace(day1, root=tmp_path), tmp_path / "staged")
