"""Fuzzers: hand-ins, answers and marks that are changed at random, by structure and by bytes.

    python -m tests.fuzz             for FUZZ_MINUTES, as in `make fuzz`
    python -m tests.fuzz FOLDER      grade a folder again that a fuzzer kept

`mutate` changes plain data, `makers` writes hand-ins, `batches` grades them as a class, and `test_fuzz` is the short form.
"""
