"""Define the messages that may cross the sandbox boundary and the limits on CPU time and memory."""
