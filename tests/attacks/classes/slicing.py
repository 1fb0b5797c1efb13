"""Write code that is expensive for the slicer, the `not_allowed` checks, the reader of magic commands and Python's own parser."""

from __future__ import annotations

from pathlib import Path

from tests.attacks.classes.case import (
    HARMLESS,
    RIGHT,
    SCRIPT,
    SLOW,
    Points,
    Unread,
    case,
    notebook,
    raw,
    script,
)
from tests.attacks.classes.case import code as cell

EITHER = (Points(3.0), Unread("limit|large|long|time|memory|many|deep|second"))
FULL_OR_LOST = (Points(0.0), *EITHER)
DAY1 = (
    *("softmax", "attention_scores", "attention", "padding_mask", "causal_mask", "decoder_mask"),
    *("masked_attention", "sinusoidal_encoding", "shift_matrix", "PositionalEncoding"),
    *("split_heads", "merge_heads", "MultiHeadAttention", "LayerNorm", "FeedForward"),
    *("EncoderLayer", "DecoderLayer", "Transformer", "sequence_loss", "greedy_decode"),
)


@case("slicing", *FULL_OR_LOST, short=True)
def chain_of_assignments(path: Path) -> None:
    """Write 20,000 assignments to `x`, each of which depends on the previous one. An audit found this attack."""
    script(path, f"{SCRIPT}# %%\nx = causal_mask\n" + "x = x + 1\n" * 20_000)


@case("slicing", *FULL_OR_LOST)
def needed_chain_of_assignments(path: Path) -> None:
    answer = RIGHT.replace("return ", "x\n    return ")
    script(path, "# %%\nx = 0\n" + "x = x + 1\n" * 20_000 + answer)


@case("slicing", Points(0.0, 4.0), Unread(), short=True)
def chain_of_attributes(path: Path) -> None:
    """Generate an attack found in an audit: assignments on which the slicer used to take quadratic time."""
    body = "    x = x.a\n" * 6_000
    script(path, f"# %%\nx = 1\ndef softmax(v, dim=-1):\n    global x\n{body}    return v\n")


@case("slicing", *FULL_OR_LOST)
def chain_of_two_names(path: Path) -> None:
    script(path, f"{SCRIPT}# %%\na = b = causal_mask\n" + "a, b = b, a\n" * 20_000)


@case("slicing", *FULL_OR_LOST)
def chain_of_names(path: Path) -> None:
    names = "".join(f"v{n} = v{n - 1}\n" for n in range(1, 30_000))
    answer = RIGHT.replace("return ", "v29999\n    return ")
    script(path, f"# %%\nv0 = 0\n{names}{answer}")


@case("slicing", *FULL_OR_LOST)
def changes_of_one_table(path: Path) -> None:
    answer = RIGHT.replace("return ", "T\n    return ")
    script(path, "# %%\nT = {}\n" + "".join(f"T[{n}] = T\n" for n in range(30_000)) + answer)


@case("slicing", *FULL_OR_LOST)
def calls_that_fill(path: Path) -> None:
    fill = "T = {}\ndef fill(n):\n    T[n] = n\n" + "".join(f"fill({n})\n" for n in range(20_000))
    script(path, f"# %%\n{fill}" + RIGHT.replace("return ", "T\n    return "))


@case("slicing", *EITHER, short=True)
def line_of_spaces(path: Path) -> None:
    """Write an invalid cell on which a regular expression used to take quadratic time. An audit found this attack."""
    script(path, f"{SCRIPT}# %%\n{' ' * 40_000}a\n")


@case("slicing", *EITHER)
def lines_of_spaces(path: Path) -> None:
    script(path, f"{SCRIPT}# %%\n" + f"{' ' * 4_000}\\\n" * 100 + "def (\n")


@case("slicing", *EITHER)
def unusual_magics(path: Path) -> None:
    lines = [
        "%" * 20_000,
        "!" * 20_000,
        "?" * 20_000,
        f"{'a.' * 10_000}b??",
        "a =" * 9_000 + " !ls",
    ]
    lines += [
        f"{' ' * 20_000}%time x",
        f"%%{' ' * 20_000}",
        "x = %" + "t" * 20_000,
        "\t" * 20_000 + "!",
    ]
    script(path, SCRIPT + "".join(f"# %%\n{line}\ndef (\n" for line in lines))


@case("slicing", *EITHER)
def backslashes_and_quotes(path: Path) -> None:
    lines = [
        "\\" * 30_000,
        "'" * 30_001,
        '"' * 30_001,
        "#" * 30_000,
        "\\\n" * 20_000,
        "'''" * 9_999,
    ]
    raw(path, notebook(cell(RIGHT), *(cell(f"{line}\n%x\n(") for line in lines)))


@case("slicing", *FULL_OR_LOST, short=True)
def many_statements(path: Path) -> None:
    """Write statements, each of which used to cost the slicer 3 kB of memory. An audit found this attack."""
    script(path, f"{SCRIPT}# %%\n" + "".join(f"v{n} = {n}\n" for n in range(400_000))[:1_900_000])


@case("slicing", *FULL_OR_LOST)
def many_one_letter_statements(path: Path) -> None:
    script(path, f"{SCRIPT}# %%\n" + "a\n" * 900_000)


@case("slicing", *FULL_OR_LOST)
def many_functions(path: Path) -> None:
    script(path, f"{SCRIPT}# %%\n" + "".join(f"def f{n}():\n f{n + 1}()\n" for n in range(50_000)))


@case("slicing", *FULL_OR_LOST)
def functions_that_mention_all_exercises(path: Path) -> None:
    names = ", ".join(DAY1)
    functions = "".join(f"def f{n}():\n    return {names}\n" for n in range(4_000))
    script(path, f"{SCRIPT}# %%\n{functions}")


@case("slicing", Points(0.0, 3.0), Unread(), short=True)
def every_exercise_many_times(path: Path) -> None:
    one = "".join(f"def {name}(*a):\n    return {', '.join(DAY1)}\n" for name in DAY1)
    script(path, f"# %%\n{one * 500}{RIGHT}")


@case("slicing", Points(0.0))
def long_code_for_every_exercise(path: Path) -> None:
    """Write 14 MB of strings that every exercise needs. They used to cost the grader minutes and a gigabyte of memory."""
    names = [f"s{n}" for n in range(10)]
    blank = "\n" * 1_400_000
    strings = [f'{name} = """{blank}"""' for name in names]
    used = ", ".join([*names, *DAY1])
    exercises = "".join(f"def {name}(*a):\n    return {used}\n" for name in DAY1)
    raw(path, notebook(*map(cell, strings), cell(exercises)))


@case("slicing", *FULL_OR_LOST)
def names_in_exec(path: Path) -> None:
    texts = "".join(f"exec('v{n} = causal_mask and softmax')\n" for n in range(20_000))
    script(path, f"{SCRIPT}# %%\n{texts}")


@case("slicing", *EITHER)
def parentheses(path: Path) -> None:
    script(path, f"{SCRIPT}# %%\nx = {'(' * 100_000}1{')' * 100_000}\n")


@case("slicing", *EITHER)
def minus_signs(path: Path) -> None:
    script(path, f"{SCRIPT}# %%\nx = {'-' * 500_000}1\n")


@case("slicing", *FULL_OR_LOST, short=True)
def sum_of_a_hundred_thousand(path: Path) -> None:
    """Write a sum of 100,000 terms, whose syntax tree is so deep that a recursive walk overflows the stack."""
    script(path, f"{SCRIPT}# %%\nx = {'1+' * 100_000}1\n")


@case("slicing", *FULL_OR_LOST)
def attributes_of_attributes(path: Path) -> None:
    script(path, f"{SCRIPT}# %%\nx = torch{'.a' * 200_000}\n")


@case("slicing", *FULL_OR_LOST)
def calls_of_calls(path: Path) -> None:
    script(path, f"{SCRIPT}# %%\nx = torch{'()' * 200_000}\n")


@case("slicing", *FULL_OR_LOST)
def blocks_in_blocks(path: Path) -> None:
    blocks = "".join(f"{' ' * n}if x:\n" for n in range(95))
    script(path, f"{SCRIPT}# %%\nx = 0\n" + (f"{blocks}{' ' * 95}x = x + 1\n") * 150)


@case("slicing", *FULL_OR_LOST)
def lambdas_in_lambdas(path: Path) -> None:
    script(path, f"{SCRIPT}# %%\nf = {'lambda: ' * 60_000}1\n")


@case("slicing", *FULL_OR_LOST)
def elif_branches(path: Path) -> None:
    arms = "".join(f"elif x == {n}:\n    y = {n}\n" for n in range(30_000))
    script(path, f"{SCRIPT}# %%\nx = 1\nif x:\n    y = 0\n{arms}")


@case("slicing", *EITHER)
def dictionary_of_100000(path: Path) -> None:
    items = ", ".join(f"{n}: [{n}]" for n in range(100_000))
    script(path, f"{SCRIPT}# %%\ntable = {{{items}}}\n")


@case("slicing", *FULL_OR_LOST)
def decorators(path: Path) -> None:
    decorated = "@f\n" * 30_000 + "def g():\n    pass\n"
    script(path, f"{SCRIPT}# %%\nf = lambda g: g\n{decorated}")


@case("slicing", *EITHER)
def one_line_of_two_megabytes(path: Path) -> None:
    script(path, f"{SCRIPT}# %%\n" + "a;" * 900_000 + "\n")


@case("slicing", *FULL_OR_LOST)
def format_string_with_many_fields(path: Path) -> None:
    fields = "{a}" * 100_000
    script(path, f"{SCRIPT}# %%\na = 1\nx = f'{fields}'\n")


@case("slicing", *FULL_OR_LOST)
def comprehensions(path: Path) -> None:
    loops = "for a in a " * 20_000
    script(path, f"{SCRIPT}# %%\na = []\nx = [a {loops}]\n")


@case("slicing", *FULL_OR_LOST)
def imports(path: Path) -> None:
    script(path, f"{SCRIPT}# %%\n" + "".join(f"import torch as t{n}\n" for n in range(60_000)))


@case("slicing", *FULL_OR_LOST)
def star_imports(path: Path) -> None:
    script(path, "# %%\n" + "from torch import *\n" * 20_000 + RIGHT)


@case("slicing", *FULL_OR_LOST)
def classes_with_methods(path: Path) -> None:
    methods = "".join(f"    def m{n}(self): return causal_mask\n" for n in range(20_000))
    calls = "".join(f"c.m{n}()\n" for n in range(20_000))
    script(path, f"{SCRIPT}# %%\nclass C:\n{methods}c = C()\n{calls}")


@case("slicing", *HARMLESS)
def declared_source_encoding(path: Path) -> None:
    raw(path, "# -*- coding: utf-7 -*-\n# %%\n" + RIGHT + "#\x00\n", ".py")


@case("slicing", *FULL_OR_LOST)
def identifiers_with_unusual_letters(path: Path) -> None:
    letters = "".join(chr(c) for c in range(0x1D400, 0x1D6A4) if chr(c).isidentifier())
    script(path, f"{SCRIPT}# %%\n" + "".join(f"{c} = {c}a = 1\n" for c in letters * 30))


@case("waiting", *HARMLESS, seconds=SLOW)
def slow_everywhere(path: Path) -> None:
    """Write exercises that refer to all other exercises and sleep until just before the limit. An audit found this attack."""
    text = "# %%\nimport time\ndef slow(*a, **k):\n    time.sleep(4.85)\n"
    for name in DAY1:
        others = ", ".join(other for other in DAY1 if other != name)
        text += f"# %%\ndef {name}(*a, **k):\n    if slow(): {others}\n"
    script(path, text)


@case("waiting", *HARMLESS, seconds=SLOW)
def burning_everywhere(path: Path) -> None:
    """Write exercises that refer to all other exercises and burn CPU time until just before the time limit."""
    burn = "    t = time.process_time()\n    while time.process_time() - t < 4.5: pass\n"
    text = f"# %%\nimport time\ndef slow(*a, **k):\n{burn}"
    for name in DAY1:
        others = ", ".join(other for other in DAY1 if other != name)
        text += f"# %%\ndef {name}(*a, **k):\n    if slow(): {others}\n"
    script(path, text)


@case("waiting", *HARMLESS, seconds=SLOW)
def sleeping_at_random(path: Path) -> None:
    """Write exercises that sleep or burn CPU time at random, so that rerunning a test can give a different result."""
    text = (
        "# %%\nimport random, time\ndef slow():\n    t = time.monotonic() + random.random() * 9\n"
    )
    text += "    while time.monotonic() < t:\n        time.sleep(0.01) if random.random() < .5 else None\n"
    for name in DAY1[:6]:
        text += f"# %%\ndef {name}(*a, **k):\n    slow()\n    return a[0] if a else None\n"
    script(path, text)
