"""Recognise known mistakes in wrong answers."""
