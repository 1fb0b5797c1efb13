"""Identify known mistakes in incorrect answers."""
