"""Define what may cross the sandbox boundary, and the limits on it."""
