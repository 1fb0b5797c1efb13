"""Benchmark the autograder, simulate classes and run the demo."""
