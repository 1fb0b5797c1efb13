"""Select the code that one exercise needs from the cells of a notebook."""
