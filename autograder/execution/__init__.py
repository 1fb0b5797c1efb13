"""Run the hidden tests for one exercise on a student's sandboxed code."""
