"""Code that runs in the student's notebook: visible checks, stand-ins, hints and progress.

`release` copies each module into the notebook as one cell, so these modules import only installed packages and each other.
`opening` and `closing` are chapters around the day's own, unless the course has `solutions/opening.py` and `closing.py`.
"""
