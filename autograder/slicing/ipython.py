"""A cell's code as Python: without IPython's magics and without statements that do not compile.

Lines keep their numbers. Everything is linear in the length of the code. What would exhaust the C stack, the
memory or the time of CPython's compiler is refused before it is compiled (CPython 3.11 dies on a
comprehension of 100,000 `for`s, and is quadratic in the functions of one name).
"""

from __future__ import annotations

import ast
import contextlib
import gc
import re
import warnings
from collections.abc import Iterator

from autograder.slicing.names import SCOPES, children

MAX_LENGTH = (
    1_500_000  # characters; a list of a million numbers takes half a gigabyte as a syntax tree
)
# Tokens, of which each takes up to 700 bytes as a syntax tree: 550,000 are a table of 270,000 numbers.
MAX_TOKENS = 550_000
MAX_BROKEN = 250_000  # of a cell that does not compile, which is read several times
MAX_SCOPES = 500  # functions, lambdas and comprehensions of one top-level statement
CHUNK = 50  # top-level statements that are compiled together
MAX_DEPTH = 200  # levels of the syntax tree, as deep as CPython lets parentheses nest
MAX_PARTS = 1000  # braces of one string, dots of one import: CPython's time is quadratic in both

# Cell magics whose body is Python that runs in the notebook; every other one's body is blanked.
PYTHON_MAGICS = {"capture", "debug", "memit", "prun", "pyinstrument", "snakeviz", "time", "timeit"}

PROMPT = re.compile(r"^(?:>>>|\.\.\.|In \[\d+\]:)(?: |$)", re.MULTILINE)
INDENT = re.compile(r"(?:[ \t]*\n)*([ \t]+)(?=\S)")
CELL_MAGIC = re.compile(r"(?:[ \t]*(?:#[^\n]*)?\n)*%%(\w*)[^\n]*")
TO_THE_END = r"[^\n]*(?:(?<=\\)\n[^\n]*)*"
TIMED = re.compile(r"([ \t]*)%time[ \t]+(?=[^\s\-])")
COMMAND = re.compile(r"([ \t]*)(?:[%!?]|(?:pip3?|conda|mamba)[ \t]+(?:un)?install\b)" + TO_THE_END)
# Possessive quantifiers: without them a line of n spaces takes n² steps or more.
HELP = re.compile(r"([ \t]*+)[\w.*\[\]]++\?{1,2}+[ \t]*+(?:;[ \t]*+)?+(?:#[^\n]*+)?+(?=\n|\Z)")
ASSIGNED = re.compile(r"((?:[ \t]*+[\w.,\[\]]++)++(?<=[\w\]])[ \t]*+=[ \t]*+)[%!]" + TO_THE_END)

LEXEME = re.compile(r"""\#[^\n]*|\"""|'{3}|"|'|[(\[{]|[)\]}]|\\\n|\n""")
STRING_ENDS = {
    '"""': re.compile(r'\\.|"""', re.DOTALL),
    "'''": re.compile(r"\\.|'''", re.DOTALL),
    '"': re.compile(r'\\.|"|(?=\n)', re.DOTALL),
    "'": re.compile(r"\\.|'|(?=\n)", re.DOTALL),
}
TOKEN = re.compile(
    r"""
    \#[^\n]*+
    | (?P<formatted>\b(?i:f|fr|rf)(?=["']))?+
      (?: \"""(?:[^"\\]|\\.|"(?!""))*+(?:\""")?+ | \'\'\'(?:[^'\\]|\\.|'(?!''))*+(?:\'\'\')?+
        | "(?:[^"\\\n]|\\.)*+"?+ | '(?:[^'\\\n]|\\.)*+'?+ )
    | \w++ | [^\w\s]
    """,
    re.VERBOSE | re.DOTALL,
)
IMPORTED = re.compile(r"\b(?:import|from)[\s\\]+[\w.\s\\]+")
# What never stands in brackets: there one was not closed, and a new statement begins.
STATEMENT = re.compile(
    r"(?:@[^\n]*\n){0,5}(?:(?:async[ \t]+)?def|class)[ \t]+\w"
    r"|import[ \t]+\w|from[ \t]+[\w.]+[ \t]+import\b"
)
CONTINUES = re.compile(r"(?:else|elif|except|finally)\b|[^\w@\"'(\[{*]")


def parse_cell(source: str) -> tuple[str, ast.Module | None, str | None]:
    """Returns the code that Python can run, its syntax tree, and what was wrong with the rest, or None.

    There is no tree if nothing can run.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an invalid escape in a student's string is no news here
        tree, problem = _parsed(source)
        if tree is not None:
            return source, tree, None
        if len(source) > MAX_LENGTH or count_tokens(source) > MAX_BROKEN:
            return _blank(source), None, problem
        lines = list(logical_lines(_undecorated(source)))
        python = "".join(lines)
        if python != source:
            tree, problem = _parsed(python)
            if tree is not None:
                return python, tree, None
        kept = "".join(_compiling(block) for block in _blocks(lines))
        tree, _ = _parsed(kept)
        return (_blank(source) if tree is None else kept), tree, problem


@contextlib.contextmanager
def gc_paused() -> Iterator[None]:
    """Pause the garbage collector, which walks through a large syntax tree again and again as it grows."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def count_tokens(source: str) -> int:
    """Returns how many tokens the code has, at least; all that stands in an f-string counts."""
    return sum(len(t[0]) if t["formatted"] else 1 for t in TOKEN.finditer(source))


def logical_lines(source: str) -> Iterator[str]:
    """Yields the source in logical lines (brackets and strings closed), magics made harmless."""
    position = 0
    while position < len(source):
        if timed := TIMED.match(source, position):
            yield timed[1]
            position = timed.end()
        for magic, harmless in ((COMMAND, "pass"), (HELP, "pass"), (ASSIGNED, "None")):
            if match := magic.match(source, position):
                yield match[1] + harmless + "\n" * match[0].count("\n")
                position = match.end()
                break
        end = _end_of_logical_line(source, position)
        yield source[position:end]
        position = end


def _undecorated(source: str) -> str:
    """Takes off what IPython takes off a whole cell: prompts, common indentation, a cell magic."""
    if PROMPT.match(source):
        source = PROMPT.sub("", source)
    if indent := INDENT.match(source):
        source = re.sub(f"^{indent[1]}", "", source, flags=re.MULTILINE)
    if magic := CELL_MAGIC.match(source):
        rest = source[magic.end() :]
        return _blank(magic[0]) + (rest if magic[1] in PYTHON_MAGICS else _blank(rest))
    return source


def _end_of_logical_line(source: str, position: int) -> int:
    depth = 0
    for start, end in _lexemes(source, position):
        character = source[start]
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth = max(0, depth - 1)
        elif character == "\n" and (depth == 0 or STATEMENT.match(source, end)):
            return end
    return len(source)


def _lexemes(source: str, position: int) -> Iterator[tuple[int, int]]:
    """Where comments, whole strings, brackets, continued lines and line ends stand."""
    while lexeme := LEXEME.search(source, position):
        position = lexeme.end()
        if closing := STRING_ENDS.get(lexeme[0]):
            while part := closing.search(source, position):
                position = part.end()
                if not part[0].startswith("\\"):
                    break
            else:
                position = len(source)
        yield lexeme.start(), position


def _blocks(lines: list[str]) -> Iterator[str]:
    """Joins logical lines to top-level statements with their bodies and decorators."""
    block: list[str] = []
    decorated = False
    for line in lines:
        if line[:1].strip() and not CONTINUES.match(line) and not decorated and block:
            yield "".join(block)
            block = []
        block.append(line)
        if line.strip() and not line.startswith("#"):
            decorated = line.startswith("@")
    yield "".join(block)


def _compiling(block: str) -> str:
    """The block if it compiles, or else those of its parts that begin in column 0 and do."""
    if _parsed(block)[0] is not None:
        return block
    parts = _blocks(re.findall(r"[^\n]*\n|[^\n]+", block))
    harmless = ("".join(logical_lines(part)) for part in parts)
    return "".join(_blank(part) if _parsed(part)[0] is None else part for part in harmless)


def _blank(source: str) -> str:
    return "\n" * source.count("\n")


# ---- what Python says


def _parsed(source: str) -> tuple[ast.Module | None, str | None]:
    """The syntax tree of code that can be compiled; else why it cannot, in words."""
    if len(source) > MAX_LENGTH:
        return None, f"too long: {len(source):,} characters, at most {MAX_LENGTH:,} are read"
    if "\0" in source:
        number = source.count("\n", 0, source.index("\0")) + 1
        return None, f"a NUL character stands in the code (line {number})"
    if len(source) > MAX_TOKENS and count_tokens(source) > MAX_TOKENS:
        return None, f"too long: at most {MAX_TOKENS:,} names, numbers and signs are read"
    if _is_slow(source):
        return None, f"too many parts in one string or import: at most {MAX_PARTS:,} are read"
    try:
        tree = ast.parse(source)
        problem = next(filter(None, map(_excess, tree.body)), None)
        if problem is None:
            _compile(tree.body)
            return tree, None
    except SyntaxError as error:
        line = f" (line {error.lineno})" if error.lineno else ""
        problem = f"{type(error).__name__}: {error.msg}{line}"
    except (RecursionError, MemoryError):
        problem = "too deeply nested for Python to read"
    except (ValueError, OverflowError) as error:
        problem = f"{type(error).__name__}: {error}"
    return None, problem


def _compile(statements: list[ast.stmt]) -> None:
    """Compile statements in groups, for CPython's time is quadratic in the functions of one name."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    for start in range(0, len(statements), CHUNK):
        chunk = statements[start : start + CHUNK]
        if start:  # so that no `from __future__` passes for a first statement
            chunk.insert(0, ast.copy_location(ast.Pass(), chunk[0]))
        compile(ast.Module(chunk, []), "<cell>", "exec", flags=flags, dont_inherit=True)


def _is_slow(source: str) -> bool:
    if source.count("{") > MAX_PARTS and any(
        source[start] in "\"'" and source.count("{", start, end) > MAX_PARTS
        for start, end in _lexemes(source, 0)
        if "f" in source[max(0, start - 2) : start].lower()
    ):
        return True
    return source.count(".") > MAX_PARTS and any(
        match[0].count(".") > MAX_PARTS for match in IMPORTED.finditer(source)
    )


def _excess(statement: ast.stmt) -> str | None:
    """What a statement has too much of, in words."""
    length = (statement.end_col_offset or 0) - statement.col_offset
    if statement.lineno == statement.end_lineno and length < MAX_DEPTH:
        return None  # each level takes a character
    level: list[ast.AST] = [statement]
    n_scopes = 0
    for _ in range(MAX_DEPTH - 2):
        n_scopes += sum(type(node) in SCOPES for node in level)
        if n_scopes > MAX_SCOPES:
            return f"too many functions in one statement: at most {MAX_SCOPES} are read"
        if any(len(getattr(node, "generators", ())) > MAX_DEPTH for node in level):
            break
        level = [child for node in level for child in children(node)]
        if not level:
            return None
    return f"too deeply nested: at most {MAX_DEPTH} levels are read"
