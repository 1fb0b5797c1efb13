"""Configure nbgrader to grade notebooks with the autograder instead of executing them. Entry point: `configure`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from nbgrader.api import Gradebook
from nbgrader.plugins import CsvExportPlugin


def configure(c: Any, course_id: str) -> None:
    """Configure nbgrader. A course's `nbgrader_config.py` calls this function with `get_config()` and the course's name."""
    c.CourseDirectory.course_id = course_id
    c.CourseDirectory.release_directory = "assignments"
    c.GenerateAssignment.preprocessors = [
        "nbgrader.preprocessors.IncludeHeaderFooter",
        "nbgrader.preprocessors.LockCells",
        "autograder.nbgrader_plugin.pipeline.NameStubs",  # replaces nbgrader's ClearSolutions
        "nbgrader.preprocessors.ClearOutput",
        "nbgrader.preprocessors.CheckCellMetadata",
        "nbgrader.preprocessors.ComputeChecksums",
        "nbgrader.preprocessors.SaveCells",
        "nbgrader.preprocessors.ClearHiddenTests",
        "nbgrader.preprocessors.ComputeChecksums",
        "nbgrader.preprocessors.CheckCellMetadata",
    ]

    # These classes do not trust what students put into the exchange. A course with its own exchange overrides both options.
    c.ExchangeFactory.collect = "autograder.nbgrader_plugin.collect.Collect"
    c.ExchangeFactory.release_feedback = "autograder.nbgrader_plugin.collect.ReleaseFeedback"
    # This exporter also reads files that nbgrader's own exporter rejects.
    c.Autograde.exporter_class = "autograder.nbgrader_plugin.pipeline.SubmissionExporter"
    c.Autograde.sanitize_preprocessors = [
        "autograder.nbgrader_plugin.pipeline.Restore",
        "nbgrader.preprocessors.ClearOutput",
        "nbgrader.preprocessors.DeduplicateIds",
        "nbgrader.preprocessors.OverwriteKernelspec",
        "nbgrader.preprocessors.OverwriteCells",
        "nbgrader.preprocessors.CheckCellMetadata",
    ]
    # This plugin applies the late policy from grading.toml.
    c.AssignLatePenalties.plugin_class = "autograder.nbgrader_plugin.pipeline.LatePenalty"
    c.ExportApp.plugin_class = "autograder.nbgrader_plugin.configuration.RoundedExport"
    c.Autograde.autograde_preprocessors = [
        "autograder.nbgrader_plugin.pipeline.Grade",  # replaces nbgrader's Execute
        "nbgrader.preprocessors.IgnorePattern",
        "nbconvert.preprocessors.ClearMetadataPreprocessor",
        "nbgrader.preprocessors.LimitOutput",
        "nbgrader.preprocessors.SaveAutoGrades",
        "nbgrader.preprocessors.AssignLatePenalties",
        "nbgrader.preprocessors.CheckCellMetadata",
    ]


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
