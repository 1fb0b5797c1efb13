"""Test that cells are recovered from damaged files, and code is recovered from cells with IPython magics or syntax errors."""

from __future__ import annotations

import ast
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograder.slicing.statements import parse_cell
from autograder.submissions.cell import MAX_CELLS, Cell
from autograder.submissions.cell_reader import MAX_BYTES, Unreadable, read_cells


def notebook(*cells: Any, **more: Any) -> bytes:
    return json.dumps({"nbformat": 4, "metadata": {}, "cells": list(cells), **more}).encode()


def code(source: Any, **more: Any) -> dict[str, Any]:
    return {"cell_type": "code", "source": source, **more}


def sources(data: bytes, name: str = "a.ipynb") -> list[str]:
    return [cell.source for cell in read_cells(data, name)[0]]


def count_or_message(data: bytes) -> int | str:
    try:
        return len(read_cells(data, "a.ipynb")[0])
    except Unreadable as error:
        return str(error)


def python(source: str) -> tuple[str, str | None]:
    result, _, problem = parse_cell(source)
    assert result.count("\n") == source.count("\n")
    compile(result, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    return result, problem


FRAGMENTS = [
    *("x = 1\n", "def f():\n", "    pass\n", "  ", "@f\n", "(", ")", "[", "'", '"""', "\\\n", "\n"),
    *(
        "%time ",
        "%%bash\n",
        "!ls",
        "x = ",
        "?",
        "# ",
        "else:\n",
        "return\n",
        "\0",
        "\x0c",
        "é",
        ">>> ",
    ),
]


# ---- notebooks


def test_cells_keep_kind_and_source() -> None:
    data = notebook(
        {"cell_type": "markdown", "id": "intro", "metadata": {}, "source": "# Day 1"},
        code(["x = 1\n", "y = 2"], id="a", metadata={"nbgrader": {"points": 4}}),
        {"cell_type": "raw", "source": "text"},
    )
    cells, problems = read_cells(data, "a.ipynb")
    assert cells == (
        Cell(1, "markdown", "# Day 1"),
        Cell(2, "code", "x = 1\ny = 2"),
        Cell(3, "raw", "text"),
    )
    assert problems == ()


@pytest.mark.parametrize("name", ["a.ipynb", "a.txt", "a.py"])
def test_json_object_is_a_notebook_under_any_name(name: str) -> None:
    assert sources(notebook(code("x = 1")), name) == ["x = 1"]


def test_nbformat_3() -> None:
    data = json.dumps(
        {
            "nbformat": 3,
            "worksheets": [
                {"cells": [{"cell_type": "heading", "level": 1, "source": "Day 1"}]},
                {"cells": [{"cell_type": "code", "input": ["x = 1\n", "y"], "language": "python"}]},
            ],
        }
    ).encode()
    cells, problems = read_cells(data, "a.ipynb")
    assert [(cell.number, cell.kind, cell.source) for cell in cells] == [
        (1, "markdown", "Day 1"),
        (2, "code", "x = 1\ny"),
    ]
    assert problems == ()


@pytest.mark.parametrize(
    ("raw", "kind", "source", "problem"),
    [
        ({"source": "x"}, "code", "x", "cell 1 has no type; it was read as code"),
        ({"cell_type": "sql", "source": "x"}, "raw", "x", "unknown type; it was read as raw text"),
        (code(None), "code", "", ""),
        (code(["x", None, 3]), "code", "x", "parts of the source are not text"),
        (code({"a": 1}), "code", "", "parts of the source are not text"),
        (code("\ufeffx\r\ny\rz"), "code", "x\ny\nz", ""),
        (code("'\ud800'"), "code", "'\ufffd'", "a lone surrogate"),
        (code("x", metadata=None, id=None), "code", "x", ""),
        (code("x", metadata=[1], id=7), "code", "x", ""),
    ],
)
def test_malformed_cell(raw: dict[str, Any], kind: str, source: str, problem: str) -> None:
    (cell,), problems = read_cells(notebook(raw), "a.ipynb")
    assert (cell.kind, cell.source) == (kind, source)
    assert len(problems) == bool(problem)
    assert problem in "".join(problems)


def test_elements_that_are_not_cells_are_skipped_but_counted() -> None:
    cells, problems = read_cells(notebook(None, "text", code("x = 1")), "a.ipynb")
    assert [cell.number for cell in cells] == [3]
    assert problems == (
        "cell 1 was skipped: it is not a JSON object",
        "cell 2 was skipped: it is not a JSON object",
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("text", ['{"cells": [{"cell_type": "code", "source": "é = 1"}]}', "é = 1"])
def test_encodings(encoding: str, text: str) -> None:
    assert sources(text.encode(encoding)) == ["é = 1"]


def test_latin_1_and_windows_1252_are_read_and_reported() -> None:
    for encoding, text in (("latin-1", "é = 1\n"), ("cp1252", "é = 1  # “x…” – €\n")):
        cells, problems = read_cells(text.replace("\n", "\r\n").encode(encoding), "a.py")
        assert cells[0].source == text
        assert "Windows-1252" in problems[0]
    cells, _ = read_cells(b"x = 1  # \x81\xe9", "a.py")
    assert cells[0].source == "x = 1  # \ufffdé"


def test_truncated_notebook_keeps_its_complete_cells() -> None:
    whole = notebook(*(code(f"x = {i}") for i in range(20)))
    cut = whole[: whole.index(b"x = 12")]
    cells, problems = read_cells(cut, "a.ipynb")
    assert [cell.source for cell in cells] == [f"x = {i}" for i in range(12)]
    assert problems == (
        "the file is truncated: only 12 cells could be read. "
        "For the rest, save the notebook in Jupyter and submit it again",
    )


@pytest.mark.parametrize("base", ["", '||||||| base\n    "source": "x = 0"\n'])
def test_the_first_version_of_parts_in_conflict_is_read(base: str) -> None:
    lines = json.dumps(json.loads(notebook(code("x = 1"), code("y = 1"))), indent=1).split("\n")
    place = next(i for i, line in enumerate(lines) if "x = 1" in line)
    other = lines[place].replace("1", "2")
    lines[place] = f"<<<<<<< HEAD\n{lines[place]}\n{base}=======\n{other}\n>>>>>>> theirs"
    cells, problems = read_cells("\n".join(lines).encode(), "a.ipynb")
    assert [cell.source for cell in cells] == ["x = 1", "y = 1"]
    assert [problem[:40] for problem in problems] == ["the file contains a Git merge conflict, "]


def test_notebook_truncated_anywhere_is_recovered_or_unreadable() -> None:
    whole = notebook(code("x = 1"), code("y = 2"))
    cuts = [count_or_message(whole[:end]) for end in range(1, len(whole))]
    counts = [cut for cut in cuts if isinstance(cut, int)]
    messages = [cut for cut in cuts if isinstance(cut, str)]
    assert cuts == messages + counts
    assert counts == sorted(counts)
    assert set(counts) == {1, 2}
    assert all("the file is truncated" in message for message in messages)


def test_damage_is_reported_with_its_line() -> None:
    data = b'{"cells": [\n{"cell_type": "code", "source": "x"},\n>>>>>>> HEAD\n{}]}'
    _, problems = read_cells(data, "a.ipynb")
    (problem,) = problems
    assert problem.startswith("the file is damaged at line 3: only 1 cell could be read.")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "the file is empty"),
        (b" \r\n\t", "the file is empty"),
        ("\ufeff".encode(), "the file is empty"),
        (b"{}", "no list of cells"),
        (b'{"cells": 3}', "no list of cells"),
        (b'{"cells": []}', "the notebook has no cells"),
        (b'{"cells": [1, null]}', "none of the notebook's cells could be read"),
        (b'{"nbformat": 4, "cel', "the file is truncated"),
        (b'{"cells": ' + b"[" * 100_000, "nested too deeply"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"%PDF-1.7", "a PDF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "a Git LFS pointer"),
        (bytes(MAX_BYTES + 1), "too large"),
        (notebook(*[{}] * (MAX_CELLS + 1)), "100,001 cells"),
        (b"# %%\n" * (MAX_CELLS + 1), "100,001 cells"),
    ],
)
def test_unreadable(data: bytes, problem: str) -> None:
    with pytest.raises(Unreadable, match=problem):
        read_cells(data, "a.ipynb")


@pytest.mark.parametrize(
    "data",
    [
        b'{"cells": [], "cells": [{"cell_type": "code", "source": "x"}]}',
        b'{"n": ' + b"9" * 5000 + b', "cells": [{"cell_type": "code", "source": "x"}]}',
        b'{"n": NaN, "cells": [{"cell_type": "code", "source": "x", "execution_count": 1e999}]}',
    ],
)
def test_unusual_json_is_still_a_notebook(data: bytes) -> None:
    assert sources(data) == ["x"]


# ---- scripts


def test_percent_script() -> None:
    text = "# %% [markdown]\n# # Day 1\n\n# %%\nx = 1\n\n#%%\n# %matplotlib inline\ny = 2\n"
    cells, problems = read_cells(text.encode(), "a.py")
    assert [(cell.number, cell.kind, cell.source) for cell in cells] == [
        (1, "markdown", "# Day 1"),
        (2, "code", "x = 1"),
        (3, "code", "%matplotlib inline\ny = 2"),
    ]
    assert problems == ()


def test_plain_script_is_one_cell() -> None:
    assert sources(b"x = 1\n\n\ndef f():\n    pass\n", "a.py") == [
        "x = 1\n\n\ndef f():\n    pass\n"
    ]


def test_script_with_overlong_options_is_one_cell() -> None:
    cells, problems = read_cells(b"# %% " + b"a=" * 200_000 + b"\nx = 1\n", "a.py")
    assert len(cells) == 1
    assert "read as one cell" in problems[0]


@pytest.mark.parametrize("name", ["a.py", "a.PY", "a.py.txt", "a.py (2).txt"])
def test_script_is_read_without_a_problem(name: str) -> None:
    cells, problems = read_cells(b"x = 1\n", name)
    assert (cells[0].source, problems) == ("x = 1\n", ())


def test_script_named_ipynb_is_read_and_reported() -> None:
    cells, problems = read_cells(b"x = 1\n", "a.ipynb")
    assert cells[0].source == "x = 1\n"
    assert problems == ("the file is not a notebook; it was read as a Python script",)


@settings(derandomize=True, max_examples=150, deadline=None, database=None)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(
                    st.sampled_from(["cells", "source", "cell_type", "worksheets", "id", "input"]),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=12,
        ).map(lambda value: json.dumps({"cells": value}).encode()),
    ),
    st.integers(0, 300),
)
def test_any_bytes_give_cells_or_a_message(data: bytes, end: int) -> None:
    for part in (data, data[:end]):
        assert count_or_message(part)


@settings(derandomize=True, max_examples=200, deadline=None, database=None)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join) | st.text(max_size=50))
def test_parsed_cell_always_compiles(source: str) -> None:
    python(source.replace("\r", "\n"))


# ---- Python code in a cell


@pytest.mark.parametrize(
    "source",
    [
        "",
        "x = 1\n",
        "x = (a\n% b)\n",
        "x = a \\\n% b\n",
        's = """\n%time\n!ls\nname?\n"""\n',
        "# %load_ext x\n",
        "await fetch()\n",
        "from __future__ import annotations\n",
        "x = 1\n\x0cy = 2\n",
    ],
)
def test_plain_python_is_unchanged(source: str) -> None:
    assert python(source) == (source, None)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("%%time\nx = 1\n", "\nx = 1\n"),
        ("\n# profile\n%%prun -s time\nx = 1\n", "\n\n\nx = 1\n"),
        # Assignments in the body of `%%timeit` are local.
        ("%%timeit -n 3\nx = 1\n", "\n\n"),
        ("%timeit x = 1\ny = 2\n", "pass\ny = 2\n"),
        ("%%capture out\n!pip install x \\\n  y\nx = 1", "\npass\n\nx = 1"),
        ("%%bash\nls (\n", "\n\n"),
        ("%%writefile a.py\nx = 1\n", "\n\n"),
        ("%matplotlib inline\nx = 1", "pass\nx = 1"),
        ("!echo \"it's (\nx = 1", "pass\nx = 1"),
        ("files = !ls (\nx = %env PATH\ny[0] = !ls\n", "files = None\nx = None\ny[0] = None\n"),
        ("%time model = train()\n%time\n", "model = train()\npass\n"),
        ("torch.nn.Linear??\n?print\nx = 1", "pass\npass\nx = 1"),
        ("pip install torch\nx = 1", "pass\nx = 1"),
        (
            "if a:\n    %time x = f()\n    !ls\nelse:\n\t?x\n",
            "if a:\n    x = f()\n    pass\nelse:\n\tpass\n",
        ),
        ('!ls\ns = """\n%time\n!x\n"""\n', 'pass\ns = """\n%time\n!x\n"""\n'),
        ("!ls\nx = (a\n% b\n)\ny = a \\\n% b\n", "pass\nx = (a\n% b\n)\ny = a \\\n% b\n"),
        ("    x = 1\n    y = 2\n", "x = 1\ny = 2\n"),
        (">>> def f():\n...     return 1\n", "def f():\n    return 1\n"),
        ("\n    >>> if a:\n    ...     b\n    ...\n", "\nif a:\n    b\n\n"),
        ("In [1]: def f():\n   ...:     return 1\n   ...: \n", "def f():\n    return 1\n\n"),
        ("[ins] In [9]: x = [\n         ...:  1]\n\nIn [10]: y = 2", "x = [\n 1]\n\ny = 2"),
        ("In [3]: %%time\n   ...: x = 1", "\nx = 1"),
    ],
)
def test_magics_become_harmless(source: str, expected: str) -> None:
    assert python(source) == (expected, None)


@pytest.mark.parametrize(
    ("source", "kept", "problem"),
    [
        ("x = 1\ny = f(\n\nclass A: 1", "x = 1\n\n\nclass A: 1", "'(' was never closed (line 2)"),
        ("def f(:\n    pass\nx = 1\n", "\n\nx = 1\n", "invalid syntax (line 1)"),
        ("x = [1,\ny = 2\n%time z = 3", "\ny = 2\nz = 3", None),
        ("@dec\ndef f():\n  (\n@dec\ndef g(): 1", "\n\n\n@dec\ndef g(): 1", "'(' was never closed"),
        ('s = """abc\ndef f():\n  pass\n', "\ndef f():\n  pass\n", "unterminated triple-quoted"),
        ("return 3\nx = 1", "\nx = 1", "'return' outside function (line 1)"),
        ("x\u00a0= 1\ny = 2", "\ny = 2", "U+00A0"),
        ("x = 1\ny = '\0'\nz = 3", "x = 1\n\nz = 3", "the code contains a NUL character (line 2)"),
        ("try:\n    1\nexcept E:\n    2\nelse\n", "", None),
        ("if a:\n  1\nelse:\n  2\nx = )", "if a:\n  1\nelse:\n  2\n", "unmatched ')' (line 5)"),
        ("x = " + "-" * 100_000 + "1\ny = 2", "\ny = 2", "too deeply nested"),
        ("x = 1" + " + 1" * 1000 + "\ny = 2", "\ny = 2", "limit: 200 levels"),
        ("[x " + "for x in x " * 10_000 + "]\ny = 2", "\ny = 2", "too deeply nested"),
    ],
)  # fmt: skip
def test_statements_that_compile_are_kept(source: str, kept: str, problem: str | None) -> None:
    result, reported = python(source)
    assert reported is not None
    assert problem is None or problem in reported
    assert result.rstrip() == kept.rstrip()


@pytest.mark.slow
@pytest.mark.parametrize(
    "source",
    [
        "x = '" + "a" * 1_000_000 + "'",
        "x = [" + "1," * 250_000 + "]",
        "x = 1\n" * 50_000,
        "!ls\n" + "x = 1\n%time y = 2\n" * 25_000,
    ],
    ids=["text", "list", "lines", "magics"],
)
def test_large_cells_are_parsed(source: str) -> None:
    assert python(source)[1] is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "source",
    [
        "(" * 100_000,
        "f(\n" * 25_000,
        "x = '''\n" * 25_001,
        "def f(:\n" * 25_000,
        "(\n@x\n" * 25_000,
        "x = 1\n" * 25_000 + "(",
        "import a" + ".a" * 100_000,
        "x = f'" + "{a}" * 100_000 + "'",
        "a = b " * 50_000 + "!",
        "x = 1\n" * 1_000_000,
    ],
    ids=["brackets", "calls", "strings", "defs", "at", "last", "dots", "braces", "names", "long"],
)
def test_pathological_cells_are_reported_in_linear_time(source: str) -> None:
    begin = time.process_time()
    _, problem = python(source)
    assert problem is not None
    # Parsing takes up to 1.5 s. A quadratic algorithm would take half a minute.
    assert time.process_time() - begin < 10
