"""Export the marks of a class in the file formats of other systems."""

from typing import Literal

Format = Literal["canvas", "moodle", "gradescope", "nbgrader", "csv"]
Target = Literal["canvas", "moodle", "folder"]  # where feedback pages go
