"""Make the process that imports this module exit without Python's own cleanup, which is slow after so many imports."""

import atexit
import os

atexit.register(os._exit, 0)
