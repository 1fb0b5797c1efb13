"""Define what may cross the boundary of the sandbox, and its limits."""
