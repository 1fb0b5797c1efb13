"""Read `grading.toml` and the chapters into typed values."""
