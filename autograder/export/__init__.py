"""Marks as other systems take them: one module a format, each from the same rows."""
