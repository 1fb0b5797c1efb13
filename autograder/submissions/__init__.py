"""Read submissions from files, folders, archives and platform downloads, and determine whose they are."""
