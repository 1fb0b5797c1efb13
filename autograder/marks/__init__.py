"""Define marks, their JSON form and the store that keeps them."""
