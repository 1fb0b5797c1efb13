"""The chapters of Day 2."""
