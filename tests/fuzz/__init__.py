"""Fuzz the autograder with randomly changed submissions, return values and marks.

    python -m tests.fuzz             fuzz for FUZZ_MINUTES minutes, like `make fuzz`
    python -m tests.fuzz FOLDER      regrade the submissions saved in FOLDER after an earlier failure

The changes affect both the structure and the raw bytes. `mutate` changes plain data, `makers` writes submissions, `batches`
grades them as a class, and `test_fuzz` is a short run for the test suite.
"""
