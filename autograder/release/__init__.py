"""Build the notebook and the assignment of a day from its chapters."""
