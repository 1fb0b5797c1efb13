"""Write hostile notebooks and scripts that waste time, waste memory or crash the reader, and very large legitimate notebooks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.attacks.classes.case import (
    HARMLESS,
    HONEST,
    LOST,
    RIGHT,
    SCRIPT,
    Points,
    Unread,
    case,
    code,
    notebook,
    raw,
    script,
)

NO_NOTEBOOK = (Unread(),)
EITHER = (Points(3.0), Unread())  # the notebook is read partly or completely, or it is rejected


def nested(depth: int, start: str = '{"a":', end: str = "}", core: str = "1") -> str:
    """Return JSON nested to this depth."""
    return start * depth + core + end * depth


def with_metadata(metadata: str) -> str:
    """Return a notebook with this JSON as the metadata of a cell."""
    return notebook().replace('"metadata": {}, "outputs"', f'"metadata": {metadata}, "outputs"', 1)


# ---- invalid notebooks


@case("notebooks", *NO_NOTEBOOK, short=True)
def empty_list(path: Path) -> None:
    raw(path, "[]")


@case("notebooks", *NO_NOTEBOOK, short=True)
def only_null(path: Path) -> None:
    raw(path, "null")


@case("notebooks", *NO_NOTEBOOK, short=True)
def only_three(path: Path) -> None:
    raw(path, " 3\n")


@case("notebooks", *NO_NOTEBOOK)
def only_a_string(path: Path) -> None:
    raw(path, '"x = 1"')


@case("notebooks", *NO_NOTEBOOK)
def only_true(path: Path) -> None:
    raw(path, "true")


@case("notebooks", *NO_NOTEBOOK)
def empty_object(path: Path) -> None:
    raw(path, "{}")


@case("notebooks", *NO_NOTEBOOK, short=True)
def cells_that_are_numbers(path: Path) -> None:
    raw(path, '{"cells": [' + "1," * 3_000_000 + "1]}")


@case("notebooks", *NO_NOTEBOOK)
def cells_that_are_an_object(path: Path) -> None:
    raw(path, '{"cells": {"0": {"cell_type": "code", "source": "x"}}}')


@case("notebooks", *NO_NOTEBOOK)
def list_of_cells_alone(path: Path) -> None:
    raw(path, json.dumps([code(RIGHT)]))


@case("notebooks", *LOST)
def spaces(path: Path) -> None:
    raw(path, b" " * 90_000_000)


@case("notebooks", *LOST)
def nul_bytes(path: Path) -> None:
    raw(path, bytes(1_000_000))


# ---- JSON that is deep, long or unusual


@case("notebooks", *EITHER, short=True)
def metadata_500_deep(path: Path) -> None:
    raw(path, with_metadata(nested(500)))


@case("notebooks", *EITHER, short=True)
def metadata_a_million_deep(path: Path) -> None:
    raw(path, with_metadata(nested(1_000_000)))


@case("notebooks", *EITHER)
def metadata_of_deep_lists(path: Path) -> None:
    raw(path, with_metadata(nested(100_000, "[", "]")))


@case("notebooks", *EITHER)
def metadata_of_the_notebook_deep(path: Path) -> None:
    raw(
        path,
        notebook().replace('"metadata": {}, "nbformat"', f'"metadata": {nested(900)}, "nbformat"'),
    )


@case("notebooks", *EITHER)
def metadata_before_the_cells(path: Path) -> None:
    cells = json.dumps([code(RIGHT)])
    raw(path, f'{{"metadata": {nested(200_000)}, "cells": {cells}}}')


@case("notebooks", *EITHER)
def outputs_deep(path: Path) -> None:
    raw(path, notebook().replace('"outputs": []', f'"outputs": [{nested(200_000, "[", "]")}]', 1))


@case("notebooks", *LOST)
def source_deep(path: Path) -> None:
    raw(
        path, '{"cells": [{"cell_type": "code", "source": ' + nested(5_000, "[", "]", '"x"') + "}]}"
    )


@case("notebooks", *LOST)
def braces_alone(path: Path) -> None:
    raw(path, '{"a":' * 2_000_000)


@case("notebooks", *LOST)
def brackets_alone(path: Path) -> None:
    raw(path, "[" * 1_500_000)


@case("notebooks", *EITHER, short=True)
def integer_of_a_million_digits(path: Path) -> None:
    raw(path, with_metadata(f'{{"n": {"9" * 1_000_000}}}'))


@case("notebooks", *EITHER)
def many_long_integers(path: Path) -> None:
    raw(path, with_metadata(f'{{"n": [{",".join(["9" * 999] * 10_000)}]}}'))


@case("notebooks", *EITHER)
def fraction_of_a_million_digits(path: Path) -> None:
    raw(path, with_metadata(f'{{"n": 0.{"1" * 1_000_000}e-999999999}}'))


@case("notebooks", *EITHER, short=True)
def numbers_outside_json(path: Path) -> None:
    raw(path, with_metadata('{"a": 1e999, "b": -1e999, "c": NaN, "d": Infinity, "e": -Infinity}'))


@case("notebooks", Points(0.0), Points(3.0), Unread())
def cells_twice(path: Path) -> None:
    wrong, right = (json.dumps([code(text)]) for text in ("x = 1", RIGHT))
    raw(path, f'{{"cells": {right}, "cells": {wrong}, "cells": {right}}}')


@case("notebooks", *EITHER)
def a_million_keys(path: Path) -> None:
    raw(path, with_metadata("{" + ",".join(f'"k{n}":{n}' for n in range(1_000_000)) + "}"))


@case("notebooks", *EITHER)
def one_key_a_million_times(path: Path) -> None:
    raw(path, with_metadata("{" + ",".join(['"k":[]'] * 1_000_000) + "}"))


@case("notebooks", *EITHER)
def text_of_fifteen_megabytes(path: Path) -> None:
    raw(path, with_metadata('{"text": "' + "\\u00e9" * 2_500_000 + '"}'))


@case("notebooks", *EITHER)
def markdown_of_fifteen_megabytes(path: Path) -> None:
    raw(path, notebook({"cell_type": "markdown", "source": "`" * 15_000_000}, code(RIGHT)))


@case("notebooks", *EITHER, short=True)
def lone_surrogates(path: Path) -> None:
    made = notebook(code(RIGHT, id="\ud800", metadata={"\udfff": "\ud800"}), code("# \udc80"))
    raw(path, made)


@case("notebooks", *EITHER)
def source_of_a_million_lines(path: Path) -> None:
    raw(path, notebook(code(RIGHT), code(["\n"] * 1_000_000)))


@case("notebooks", *EITHER, short=True)
def ten_thousand_odd_cells(path: Path) -> None:
    """Write a notebook with thousands of invalid cells, each of which is a separate problem to report."""
    odd: list[dict[str, Any]] = [{"cell_type": f"kind {n}", "source": [n]} for n in range(9_600)]
    raw(path, notebook(code(RIGHT), *odd))


@case("notebooks", *EITHER)
def cells_that_do_not_compile(path: Path) -> None:
    raw(path, notebook(code(RIGHT), *(code(f"def broken_{n}(:") for n in range(3_000))))


@case("notebooks", *HONEST)
def forged_nbgrader_metadata(path: Path) -> None:
    forged = {"grade": True, "points": 1e308, "grade_id": "../../ada", "schema_version": 3}
    raw(path, notebook(code(RIGHT, metadata={"nbgrader": {**forged, "solution": True}})))


@case("notebooks", *EITHER)
def truncated(path: Path) -> None:
    raw(path, notebook(code(RIGHT), code("x = 1"))[:-30])


@case("notebooks", *HARMLESS)
def damaged_many_times(path: Path) -> None:
    """Write JSON with damage after every cell, so that the reader has to recover repeatedly."""
    cell = json.dumps(code(RIGHT))
    raw(path, '{"cells": [' + f"{cell},,}}{{" * 20_000)


@case("notebooks", *HARMLESS)
def utf_16(path: Path) -> None:
    raw(path, b"\xff\xfe" + notebook().encode("utf-16-le") + b"\x00\xd8")


# ---- large honest notebooks


def _picture(size: int) -> dict[str, Any]:
    data = {"image/png": "iVBORw0KGgo" + "A" * size, "text/plain": ["<Figure>"]}
    return {"output_type": "display_data", "data": data, "metadata": {}}


@case("notebooks", *HONEST, short=True)
def plots_of_100_megabytes(path: Path) -> None:
    """Write a legitimate notebook with a plot in nearly every cell."""
    cells = [code(f"x = {n}", outputs=[_picture(2_500_000)]) for n in range(40)]
    raw(path, notebook(*cells[:20], code(RIGHT), *cells[20:]))


@case("notebooks", *HONEST)
def one_animation_of_100_megabytes(path: Path) -> None:
    """Write a legitimate notebook with a large HTML animation before the answer."""
    html = [f'frames[{n}] = "data:image/png;base64,{"A" * 10_000}"\\\n' for n in range(10_000)]
    output = {"output_type": "display_data", "data": {"text/html": html}, "metadata": {}}
    raw(path, notebook(code("x = 1", outputs=[output]), code(RIGHT)))


@case("notebooks", *HONEST)
def thirty_thousand_cells(path: Path) -> None:
    """Write a legitimate notebook with 30,000 cells."""
    raw(path, notebook(code(RIGHT), *(code(f"print({n})") for n in range(30_000))))


@case("notebooks", *HONEST, short=True)
def table_of_45000_numbers(path: Path) -> None:
    """Write a legitimate notebook whose answer uses a long table of numbers."""
    table = ", ".join(f"{n}.{n % 997:03}" for n in range(45_000))
    text = f"table = [\n{table}]\n{RIGHT}".replace("return ", "table[n]\n    return ")
    raw(path, notebook(code(text)))


# ---- scripts


ALIASES = "".join(
    f"#   a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9) if n else 'x'}]\n" for n in range(14)
)
HEADERS = {
    "header_aliases": f"#   x: 1\n{ALIASES}",
    "header_merge_keys": "#   a: &a {b: 1}\n"
    + "".join(
        f"#   c{n}: &c{n} {{<<: [*a{f', *c{n - 1}' * 9 if n else ''}]}}\n" for n in range(12)
    ),
    "header_tags": "#   a: !!python/object/apply:os._exit [1]\n#   b: !!int ''\n#   c: !!timestamp 'x'\n",
    "header_recursive": "#   a: &a [*a, *a]\n#   b: &b {*b : *b}\n",
    "header_deep": f"#   a: {'[' * 100_000}\n",
    "header_long": "".join(f"#   k{n}: {{a: [1, 2, {{b: c}}]}}\n" for n in range(60_000)),
}


def _headers() -> Iterator[None]:
    for name, header in HEADERS.items():

        def write(path: Path, header: str = header) -> None:
            script(path, f"# ---\n# jupyter:\n{header}# ---\n{SCRIPT}")

        write.__name__ = name
        case("yaml", *EITHER, short=name in ("header_aliases", "header_tags"))(write)
        yield


list(_headers())


@case("yaml", *EITHER)
def options_of_a_cell(path: Path) -> None:
    script(path, "# %% " + "[" * 900 + "\n" + "# %% a={'b':" * 70 + "\n" + SCRIPT)


@case("yaml", *EITHER)
def many_markers(path: Path) -> None:
    script(path, SCRIPT + "# %%\n" * 400_000)


@case("yaml", *EITHER)
def markers_with_keys(path: Path) -> None:
    script(path, SCRIPT + "".join(f'# %% t{n} {{"a": [{n}]}}\n' for n in range(4_000)))
