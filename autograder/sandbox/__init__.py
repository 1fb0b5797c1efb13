"""Runs code that nobody trusts, and answers calls to it; knows nothing of exercises."""
