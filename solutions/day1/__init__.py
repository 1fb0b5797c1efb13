"""The chapters of Day 1, on the Transformer's architecture."""
