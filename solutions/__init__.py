"""The chapters of the course with their solutions: one source for notebooks, releases and tests."""
