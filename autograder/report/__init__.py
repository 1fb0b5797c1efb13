"""Marks made readable: the table in the terminal, and pages."""
