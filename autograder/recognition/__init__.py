"""Recognise known mistakes in incorrect answers."""
