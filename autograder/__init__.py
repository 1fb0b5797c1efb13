"""Grades the exercises of a course on Transformers; student code never runs where the tests run."""
