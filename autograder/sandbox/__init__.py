"""Run untrusted code in isolated processes and call into it. This package knows nothing about exercises."""
