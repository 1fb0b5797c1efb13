"""Benchmark the autograder, simulate classes and run `make demo`."""
