"""Export a class's marks in other systems' file formats."""

from typing import Literal

Format = Literal["canvas", "moodle", "gradescope", "nbgrader", "csv"]
Target = Literal["canvas", "moodle", "folder"]  # destinations for feedback pages
