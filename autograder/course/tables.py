"""Read values from tables in a TOML file. Entry point: `Tables`.

Error messages name the line, the key and the expected value.
"""

from __future__ import annotations

import re
from typing import Any, get_args

from autograder.course.files import GRADING_TOML, CourseError
from autograder.protocol.limits import Limits

LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*")  # matches the most common BCP 47 tags
UNITS = {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3}


class Tables:
    """The tables of `grading.toml`. The file's text is kept so that error messages can include line numbers."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()

    def seconds(self, where: str, table: dict[str, Any], key: str) -> float:
        value = float(self.value(where, table, key, (int, float), "a number of seconds"))
        if not 0 < value < 86400:
            raise self.error(where, key, f"{value:g} seconds is outside the range 0 to 86,400")
        return value

    def size(self, where: str, table: dict[str, Any], key: str) -> int:
        text = self.value(where, table, key, str, 'a size such as "2 GB"')
        match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(B|kB|MB|GB)", text)
        if not match:
            raise self.error(where, key, f'{text!r} should be a size such as "2 GB" or "64 kB"')
        return int(float(match[1]) * UNITS[match[2]])

    def limits(self, where: str, table: dict[str, Any]) -> Limits:
        seconds = self.seconds(where, table, "cpu_seconds")
        total = self.seconds(where, table, "total_cpu_seconds")
        idle = self.seconds(where, table, "idle_seconds")
        return Limits(seconds, total, self.size(where, table, "memory"), idle)

    def value(self, where: str, table: dict[str, Any], key: str, kind: Any, expected: str) -> Any:
        if key not in table:
            raise self.error(where, "", f"{key} is missing; it should be {expected}")
        value = table[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.error(where, key, f"{value!r} should be {expected}")
        return value

    def flag(self, where: str, table: dict[str, Any], key: str) -> bool:
        value = table.get(key, False)
        if not isinstance(value, bool):
            raise self.error(where, key, f"{value!r} should be true or false")
        return value

    def names(self, where: str, table: dict[str, Any], key: str) -> tuple[str, ...]:
        value = table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise self.error(where, key, "should be a list of names, each in quotes")
        return tuple(value)

    def language(self, tables: dict[str, Any]) -> str:
        """Remove the table `course` from `tables`, and return the language that it specifies (default: "en")."""
        table = tables.pop("course", {})
        self.check_keys("course", table, {"language"})
        language = self.value("course", {"language": "en", **table}, "language", str, "a string")
        if not LANGUAGE.fullmatch(language):
            problem = f'{language!r} should be a language tag such as "de" or "zh-Hans"'
            raise self.error("course", "language", problem)
        return str(language)

    def choice(self, where: str, table: dict[str, Any], key: str, kind: Any, default: str) -> Any:
        """Check that a value is one of the strings in a Literal, and return it."""
        value, choices = table.get(key, default), get_args(kind)
        if value not in choices:
            expected = " or ".join(f'"{choice}"' for choice in choices)
            raise self.error(where, key, f"{value!r} should be {expected}")
        return value

    def check_keys(self, where: str, table: Any, known: set[str]) -> None:
        if not isinstance(table, dict):
            raise self.error(where, "", "should be a table")
        for key in table:
            if key not in known:
                raise self.error(
                    where, key, f"unknown key; the known keys are {', '.join(sorted(known))}"
                )

    def error(self, table: str, key: str, problem: str) -> CourseError:
        where = f"{GRADING_TOML}, line {line}" if (line := self._line(table, key)) else GRADING_TOML
        return CourseError(f"{where}: {table}{'.' if key else ''}{key}: {problem}")

    def _line(self, table: str, key: str) -> int:
        """Return the line number of a key, or of the table's header if the key is not found. Return 0 if neither is found."""
        in_table, header = False, 0
        for number, line in enumerate(self._lines, 1):
            if line.lstrip().startswith("["):
                in_table = line.strip().split("]")[0] == f"[{table}"
                header = number if in_table else header
            elif in_table and key and re.match(rf"\s*{re.escape(key)}\s*=", line):
                return number
        return header
