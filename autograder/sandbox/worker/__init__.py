"""Run a student's code in the sandbox and answer calls to it."""
