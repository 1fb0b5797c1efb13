"""Build a day's notebook and released assignment from the day's chapters."""
