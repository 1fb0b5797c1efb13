"""The chapters of the course with their solutions: the single source for notebooks, releases and tests."""
