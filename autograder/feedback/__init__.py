"""Render everything that a person reads about marks."""
