"""Build the notebook and the released assignment of a day from its chapters."""
