"""Run untrusted code in isolated processes and call into it. Nothing in this package is specific to exercises."""
