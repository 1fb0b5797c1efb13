"""Parse `grading.toml` and the chapters."""
