"""Select the code that each exercise needs from the cells of a notebook."""
