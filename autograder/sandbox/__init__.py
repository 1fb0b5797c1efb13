"""Run untrusted code in isolated processes and call it. Knows nothing of exercises."""
