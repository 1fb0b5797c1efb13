"""Recognise the known mistake in wrong code."""
