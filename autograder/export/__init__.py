"""Write the marks of a class in other systems' formats."""

from typing import Literal

Format = Literal["canvas", "moodle", "gradescope", "nbgrader", "csv"]
