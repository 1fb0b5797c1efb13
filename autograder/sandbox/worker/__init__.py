"""Run a student's code behind the wall and answer calls to it."""
