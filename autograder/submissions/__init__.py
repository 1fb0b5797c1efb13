"""Read submissions from files, folders, archives and platform downloads, and identify the students who submitted them."""
