"""Show a room's progress while students work. This never writes the store of marks, except in `watch`."""
