"""Fuzz the autograder with random changes to submissions, return values and marks, in their structure and their bytes.

    python -m tests.fuzz             fuzz for FUZZ_MINUTES, like `make fuzz`
    python -m tests.fuzz FOLDER      grade the submissions of an earlier failure again

`mutate` changes plain data, `makers` writes submissions, `batches` grades them as a class, and `test_fuzz` is the short form.
"""
