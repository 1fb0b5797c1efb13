"""Read submissions from files, folders, archives and platform downloads, and determine which students submitted them."""
