"""Run a student's code in the sandbox and serve calls to it."""
