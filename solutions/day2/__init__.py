"""The chapters of Day 2, on what Transformers are used for."""
