"""Run untrusted code in isolated processes and call its functions. Nothing in this package is specific to exercises."""
