"""Parse a notebook's code cells into units. Entry point: `parse_units`."""

from __future__ import annotations

import ast
import contextlib
import gc
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from autograder.slicing.names import SCOPES, children
from autograder.slicing.unit import Unit, make_unit
from autograder.submissions.cell import Cell

# Maximum number of characters in a cell. The syntax tree of a list with a million numbers takes half a gigabyte.
MAX_LENGTH = 1_500_000
# Each token takes up to 700 bytes in the syntax tree. A table of 270,000 numbers has 550,000 tokens.
MAX_CELL_TOKENS = 550_000
# Maximum number of tokens in a cell that does not compile. This limit is lower because such cells are parsed
# repeatedly.
MAX_BROKEN = 250_000
MAX_SCOPES = 500  # functions, lambdas and comprehensions per top-level statement
CHUNK = 50  # top-level statements compiled together
MAX_DEPTH = 200  # syntax tree depth; CPython has the same limit for parentheses
# Maximum number of braces in a string or dots in an import. CPython's running time is quadratic in both.
MAX_PARTS = 1000
MAX_CACHED = 20_000  # maximum number of characters in a cached cell
MAX_UNITS = 100_000  # maximum number of units per notebook
MAX_TOKENS = 1_000_000  # maximum number of tokens in all cells of a notebook
TOO_LONG = "the notebook is too long; the rest was not read"
# Exceptions that Python's parser, compiler and `symtable` raise for hostile or deeply nested code.
REFUSALS = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)

# Cell magics whose body is Python code that runs in the notebook. The bodies of other cell magics are blanked, including
# that of `%%timeit`: IPython runs it in a function, where assignments are local.
PYTHON_MAGICS = {"capture", "debug", "memit", "prun", "pyinstrument", "snakeviz", "time"}

# Python prompts, such as `>>> ` and `... `, and IPython prompts, such as `In [1]: ` and `   ...: `.
PROMPT = re.compile(
    r"^(?:(?:>>>|\.\.\.)(?: |$)|(?:(?:\[(?:nav|ins)\])? )?In \[\d+\]:(?: |$)|[ \t]*+\.{3,}+: ?)",
    re.MULTILINE,
)
INDENT = re.compile(r"(?:[ \t]*\n)*([ \t]+)(?=\S)")
CELL_MAGIC = re.compile(r"(?:[ \t]*(?:#[^\n]*)?\n)*%%(\w*)[^\n]*")
TO_THE_END = r"[^\n]*(?:(?<=\\)\n[^\n]*)*"
TIMED = re.compile(r"([ \t]*)%time[ \t]+(?=[^\s\-])")
COMMAND = re.compile(r"([ \t]*)(?:[%!?]|(?:pip3?|conda|mamba)[ \t]+(?:un)?install\b)" + TO_THE_END)
# The quantifiers are possessive. Otherwise, a line of n spaces would take at least n² steps.
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
# Code that is invalid inside brackets. If it occurs there, a bracket was not closed and a new statement begins.
STATEMENT = re.compile(
    r"(?:@[^\n]*\n){0,5}(?:(?:async[ \t]+)?def|class)[ \t]+\w"
    r"|import[ \t]+\w|from[ \t]+[\w.]+[ \t]+import\b"
)
CONTINUES = re.compile(r"(?:else|elif|except|finally)\b|[^\w@\"'(\[{*]")


def parse_cell(source: str) -> tuple[str, ast.Module | None, str | None]:
    """Return the part of a cell that Python can run, its syntax tree, and the problem with the rest of the cell.

    The tree is None if no code can run. The problem is None if all code can run.
    """
    with warnings.catch_warnings():
        # Ignore warnings, such as those about invalid escapes in a student's strings.
        warnings.simplefilter("ignore")
        tree, problem = _try_parse(source)
        if tree is not None:
            return source, tree, None
        if len(source) > MAX_LENGTH or count_tokens(source) > MAX_BROKEN:
            return _blank(source), None, problem
        lines = list(logical_lines(_strip_cell_syntax(source)))
        python = "".join(lines)
        if python != source:
            tree, problem = _try_parse(python)
            if tree is not None:
                return python, tree, None
        kept = "".join(_keep_compiling_parts(block) for block in _blocks(lines))
        tree, _ = _try_parse(kept)
        return (_blank(source) if tree is None else kept), tree, problem


@contextlib.contextmanager
def gc_paused() -> Iterator[None]:
    """Pause the garbage collector, which would otherwise traverse a large syntax tree many times while it grows."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def count_tokens(source: str) -> int:
    """Estimate the number of tokens in the source. Each character of an f-string counts as one token."""
    return sum(len(t[0]) if t["formatted"] else 1 for t in TOKEN.finditer(source))


def logical_lines(source: str) -> Iterator[str]:
    """Yield a cell's logical lines, replacing magics with `pass` or `None`.

    A logical line ends where all brackets and strings are closed.
    """
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


def _strip_cell_syntax(source: str) -> str:
    """Remove the syntax that IPython removes from a whole cell: indentation, prompts and a cell magic."""
    source = _dedent(source)
    if PROMPT.match(source, len(source) - len(source.lstrip("\n"))):
        source = _dedent(PROMPT.sub("", source))
    if magic := CELL_MAGIC.match(source):
        rest = source[magic.end() :]
        return _blank(magic[0]) + (rest if magic[1] in PYTHON_MAGICS else _blank(rest))
    return source


def _dedent(source: str) -> str:
    """Remove the first line's indentation from all lines."""
    if indent := INDENT.match(source):
        return re.sub(f"^{indent[1]}", "", source, flags=re.MULTILINE)
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
    """Yield the start and end of each comment, string, bracket, line continuation and newline."""
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
    """Join logical lines into top-level statements with their bodies and decorators."""
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


def _keep_compiling_parts(block: str) -> str:
    """Return a block unchanged if it compiles. Otherwise, blank out its top-level parts that do not compile."""
    if _try_parse(block)[0] is not None:
        return block
    parts = _blocks(re.findall(r"[^\n]*\n|[^\n]+", block))
    harmless = ("".join(logical_lines(part)) for part in parts)
    return "".join(_blank(part) if _try_parse(part)[0] is None else part for part in harmless)


def _blank(source: str) -> str:
    """Return as many line breaks as the source contains."""
    return "\n" * source.count("\n")


# ---- compiling


def _try_parse(source: str) -> tuple[ast.Module | None, str | None]:
    """Return the code's syntax tree, or None and the reason why it does not compile."""
    if len(source) > MAX_LENGTH:
        return None, f"the cell is too long: {len(source):,} characters (limit: {MAX_LENGTH:,})"
    if "\0" in source:
        number = source.count("\n", 0, source.index("\0")) + 1
        return None, f"the code contains a NUL character (line {number})"
    if len(source) > MAX_CELL_TOKENS and count_tokens(source) > MAX_CELL_TOKENS:
        return None, f"the cell is too long: more than {MAX_CELL_TOKENS:,} tokens"
    if _is_slow(source):
        return None, f"one string or import has too many parts (limit: {MAX_PARTS:,})"
    try:
        tree = ast.parse(source)
        problem = next(filter(None, map(_excess, tree.body)), None)
        if problem is None:
            _compile(tree.body)
            return tree, None
    except REFUSALS as error:
        line = f" (line {error.lineno})" if isinstance(error, SyntaxError) and error.lineno else ""
        problem = _describe_error(error) + line
    return None, problem


def _describe_error(error: BaseException) -> str:
    if isinstance(error, RecursionError | MemoryError):
        return "the code is too deeply nested for Python"
    message = error.msg if isinstance(error, SyntaxError) else error
    return f"{type(error).__name__}: {message}"


def _compile(statements: list[ast.stmt]) -> None:
    """Compile statements in groups, because CPython takes quadratic time for many functions with the same name."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    for start in range(0, len(statements), CHUNK):
        chunk = statements[start : start + CHUNK]
        if start:
            # Otherwise, a `from __future__` import in the middle of the cell would be accepted.
            chunk.insert(0, ast.copy_location(ast.Pass(), chunk[0]))
        compile(ast.Module(chunk, []), "<cell>", "exec", flags=flags, dont_inherit=True)


def _is_slow(source: str) -> bool:
    """Return whether an f-string or import has so many parts that CPython's compiler would take too long."""
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
    """Return a message that states which limit a statement exceeds, or None if it is within all limits."""
    length = (statement.end_col_offset or 0) - statement.col_offset
    if statement.lineno == statement.end_lineno and length < MAX_DEPTH:
        return None  # each nesting level takes at least one character
    level: list[ast.AST] = [statement]
    n_scopes = 0
    for _ in range(MAX_DEPTH - 2):
        n_scopes += sum(type(node) in SCOPES for node in level)
        if n_scopes > MAX_SCOPES:
            return f"one statement contains too many functions (limit: {MAX_SCOPES})"
        if any(len(getattr(node, "generators", ())) > MAX_DEPTH for node in level):
            break
        level = [child for node in level for child in children(node)]
        if not level:
            return None
    return f"the code is too deeply nested (limit: {MAX_DEPTH} levels)"


def parse_units(cells: Iterable[Cell], given: bool = False) -> tuple[list[Unit], list[str]]:
    """Return the units in a notebook's code cells and any problems. `given` marks the units as provided by the course."""
    with gc_paused():
        return _parse_units([cell for cell in cells if cell.kind == "code"], given)


def _parse_units(cells: Sequence[Cell], given: bool) -> tuple[list[Unit], list[str]]:
    units: list[Unit] = []
    problems: list[str] = []
    left = MAX_TOKENS
    is_long = sum(len(cell.source) for cell in cells) > left
    for cell in cells:
        left -= count_tokens(cell.source) if is_long else 0
        if left < 0 or len(units) > MAX_UNITS:
            problems.append(f"cell {cell.number}: {TOO_LONG}")
            break
        read = _cached_cell_units if len(cell.source) <= MAX_CACHED else _cell_units
        found, cell_problems = read(cell.source)
        units += [replace(unit, cell=cell.number, given=given) for unit in found]
        problems += [f"cell {cell.number}: {problem}" for problem in cell_problems]
    return units, problems


def _cell_units(text: str) -> tuple[list[Unit], list[str]]:
    source, tree, problem = parse_cell(text)
    problems = [problem] if problem is not None else []
    statements = tree.body if tree else []
    units: list[Unit] = []
    lines = re.split(r"\r\n|\r|\n", source)
    with warnings.catch_warnings():
        # Ignore warnings, such as those about invalid escapes in a student's strings.
        warnings.simplefilter("ignore")
        for group in _group_by_line(statements, lines):
            start, end = _first_line(group[0], lines), group[-1].end_lineno or 0
            if len(units) > MAX_UNITS:
                return units, [*problems, TOO_LONG]
            # A backslash at the end continues onto an empty line, which is not part of the unit.
            own = "\n".join(lines[start - 1 : end]).removesuffix("\\")
            try:
                units.append(make_unit(own, group, start))
            except REFUSALS as error:
                problems.append(_describe_error(error))
    return units, problems


# Most cells (checks, demonstrations and given code) are the same in all notebooks of a class.
_cached_cell_units = lru_cache(maxsize=1024)(_cell_units)


def _first_line(statement: ast.stmt, lines: list[str]) -> int:
    decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
    first = min([statement.lineno, *(d.lineno for d in decorators)])
    while decorators and first > 1 and not lines[first - 1].lstrip().startswith("@"):
        first -= 1  # the decorator starts on an earlier line: `@(`
    return first


def _group_by_line(statements: list[ast.stmt], lines: list[str]) -> Iterator[list[ast.stmt]]:
    """Group statements that share a line so that each group consists of whole lines."""
    group: list[ast.stmt] = []
    for statement in statements:
        if group:
            end = group[-1].end_lineno or 0
            if _first_line(statement, lines) > end and not lines[end - 1].endswith("\\"):
                yield group
                group = []
        group.append(statement)
    if group:
        yield group
