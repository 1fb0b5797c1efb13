"""Round the numbers in the file written by `nbgrader export`. `nbgrader_config.py` enables this plugin."""

from __future__ import annotations

import re
from pathlib import Path

from nbgrader.api import Gradebook
from nbgrader.plugins import CsvExportPlugin

DEFAULT = "grades.csv"
# Match whole cells, so times with fractional seconds are unchanged.
LONG_NUMBER = re.compile(r"(?<=,)-?\d+\.\d{3,}(?:e-?\d+)?(?=,|$)", re.MULTILINE)


class RoundedExport(CsvExportPlugin):  # type: ignore[misc]
    """A version of nbgrader's export that rounds numbers, to avoid floating-point sums such as 43.839999999999996."""

    def export(self, gradebook: Gradebook) -> None:
        """Write the exported file with numbers rounded to two decimal places."""
        super().export(gradebook)
        file = Path(self.to or DEFAULT)
        file.write_text(round_numbers(file.read_text(encoding="utf-8")), encoding="utf-8")


def round_numbers(text: str) -> str:
    """Round each cell that is a number with more than two decimal places."""
    return LONG_NUMBER.sub(lambda found: str(round(float(found[0]), 2)), text)
