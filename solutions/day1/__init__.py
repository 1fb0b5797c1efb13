"""Day 1: the architecture."""
