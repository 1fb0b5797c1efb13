"""Extract the code that each exercise needs from a notebook."""
