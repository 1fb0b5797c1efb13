"""Render everything that people read about marks: student pages, the class report and the terminal table."""
