"""Define marks, their JSON format and the store that contains them."""
