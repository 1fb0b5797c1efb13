"""Write random hostile submissions. Each maker takes a path without a suffix and writes one submission."""

from __future__ import annotations

import json
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.attacks.classes import slicing
from tests.attacks.classes.case import RIGHT, code, member, notebook, raw, tarred, zipped
from tests.attacks.classes.cases import FOLDER
from tests.fuzz import answers, mutate

Maker = Callable[[Path, random.Random], None]
OUTPUT = {"output_type": "stream", "name": "stdout", "text": ["1\n"]}
BOOK = json.loads(
    notebook(
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# Title\n", "text"]},
        code(RIGHT.splitlines(keepends=True), id="b", outputs=[OUTPUT], metadata={"tags": ["x"]}),
        code("%matplotlib inline\nx = causal_mask(3)\n!ls\nx[0]", id="c"),
        code(RIGHT, id="causal_mask", metadata={"nbgrader": {"grade": False, "solution": True}}),
        metadata={"kernelspec": {"name": "python3"}, "language_info": {"name": "python"}},
    )
)
METADATA = """\
submission_1:
  :submitters:
  - :name: Eve
    :sid: 14
    :email: eve@example.org
  :created_at: 2026-11-30 11:00:00 Z
  :score: 1.5
"""
PERCENT = f"""\
# ---
# jupyter:
#   kernelspec: {{name: python3, language: python}}
#   a: &a [1, 2]
# ---

# %% [markdown]
# # Title

# %% title tags=["x"] a={{"b": 1}}
{RIGHT}
# %%
x = [causal_mask(n) for n in range(3)]; x
"""
FORGING = (FOLDER / "forging.py").read_text(encoding="utf-8").split("#### ", 1)[0]
MUTATE = Path(mutate.__file__).read_text(encoding="utf-8")


def notebooks(path: Path, draw: random.Random) -> None:
    """Write a notebook with random changes to its structure, its bytes, or both."""
    data = json.dumps(mutate.change_value(BOOK, draw)).encode() if draw.random() < 0.8 else b""
    data = data or json.dumps(BOOK).encode()
    if draw.random() < 0.4:
        data = mutate.damage_bytes(data, draw)
    raw(path, data, draw.choice((".ipynb", ".ipynb", ".py")))


def scripts(path: Path, draw: random.Random) -> None:
    """Write a script with random changes to its header, cell markers and code."""
    text = PERCENT
    for _ in range(draw.choice((1, 2, 6))):
        text = mutate.change_text(text, draw)
    data = text.encode("utf-8", "surrogatepass")
    raw(path, mutate.damage_bytes(data, draw) if draw.random() < 0.3 else data, ".py")


def sources(path: Path, draw: random.Random) -> None:
    """Write the correct solution plus random lines that are hard to slice."""
    patterns = (
        *("x = x + 1", "x, y = y, x", "causal_mask.a = x", "x = x.a", "T[x] = T", "del x", "global x"),
        *("def f(*a): return x, causal_mask, f", "@f\ndef g(): pass", "class C(x): y = x", "exec('x = 1')"),
        *("for x in T: x", "try: x\nexcept: y = x", "from torch import *", "%time x", "!ls {x}", "x?", "(x := y)"),
        *("with x as y: pass", "lambda: x", "x: int = y", "if x:\n    causal_mask = y", "globals()['x'] = y"),
    )  # fmt: skip
    lines = [draw.choice(patterns) for _ in range(draw.choice((3, 30, 300)))]
    names = draw.choice((("x", "y", "T"), slicing.DAY1))
    for place, line in enumerate(lines):
        lines[place] = line.replace("x", draw.choice(names)) if draw.random() < 0.5 else line
    raw(path, f"# %%\n{RIGHT}\n# %%\n" + "\n".join(lines), ".py")


def archives(path: Path, draw: random.Random) -> None:
    """Write an archive with unusual names, metadata and members, and often damage the archive."""
    book = json.dumps(mutate.change_value(BOOK, draw) if draw.random() < 0.3 else BOOK).encode()
    metadata = METADATA
    for _ in range(draw.choice((0, 1, 4))):
        metadata = mutate.change_text(metadata, draw)
    names = [
        "day1.ipynb",
        "submission_1/day1.ipynb",
        "../ada.ipynb",
        "ada/day1/day1.ipynb",
        "a" * 300,
        "/x.py",
    ]
    names += [
        "bob_12_12345_day1.ipynb",
        "Bob_7_assignsubmission_file_/day1.ipynb",
        "__MACOSX/day1.ipynb",
        "x.zip",
    ]
    chosen = draw.sample(names, draw.randint(1, 4))
    files = [(name, book) for name in chosen]
    files.append(("submission_metadata.yml", metadata.encode("utf-8", "surrogatepass")))
    if draw.random() < 0.5:
        method = draw.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_BZIP2))
        data, ending = zipped(files, method), ".zip"
        if draw.random() < 0.2:
            data = zipped([("inner.zip", data)])
    else:
        mode, ending = draw.choice((("w", ".tar"), ("w:gz", ".tar.gz"), ("w:xz", ".tar.xz")))
        kinds = (tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.GNUTYPE_SPARSE)
        members = [member(name, body, type=draw.choice((kinds[0], *kinds))) for name, body in files]
        data = tarred(members, mode)
    raw(path, mutate.damage_bytes(data, draw) if draw.random() < 0.6 else data, ending)


def wires(path: Path, draw: random.Random) -> None:
    """Write a script that randomly corrupts the structure or the bytes of its responses to the grader."""
    seed, chance = draw.randrange(1 << 30), draw.choice((0.05, 0.3, 1.0))
    while_loading = draw.random() < 0.5
    install = (
        f"DRAW = random.Random({seed})\n"
        "def change(plain):\n"
        f"    if DRAW.random() < {chance}:\n"
        "        if DRAW.random() < 0.3:\n"
        "            return damage_bytes(msgspec.msgpack.encode(plain), DRAW)\n"
        "        return change_value(plain, DRAW)\n"
    )
    default = ", _=forge(change)" if while_loading else ""
    first = "" if while_loading else "    forge(change)\n"
    answer = f"def causal_mask(n, device=None{default}):\n{first}    return right(n, device)\n"
    raw(path, f"# %%\n{FORGING}\n# %%\n{MUTATE}\n# %%\n{install}\n# %%\n{answer}", ".py")


def returned(path: Path, draw: random.Random) -> None:
    """Write a script that returns unusual values."""
    raw(path, answers.random_script(draw), ".py")


MAKERS: dict[str, Maker] = {
    "notebooks": notebooks,
    "scripts": scripts,
    "sources": sources,
    "archives": archives,
    "wires": wires,
    "returned": returned,
}
