"""Build a day's notebook and released assignment from its chapters."""
