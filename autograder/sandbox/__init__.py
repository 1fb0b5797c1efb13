"""Run and call untrusted code in isolated processes. Nothing in this package is specific to exercises."""
