"""Code that runs in the student's notebook: visible checks, stand-ins, hints, predictions, attention weights and progress.

`release` copies each module into the notebook as one cell, so these modules import only installed
packages and each other. `opening` and `closing` are the default first and last chapters. A course
can replace them with `solutions/opening.py` and `solutions/closing.py`.
"""
