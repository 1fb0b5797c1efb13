"""Grade one submission, or a whole class."""
