"""Confine processes with namespaces, Landlock, seccomp and rlimits."""
