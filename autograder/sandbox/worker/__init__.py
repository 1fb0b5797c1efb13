"""Run a student's code inside the sandbox and answer calls to it."""
