"""Confine a process with namespaces, Landlock, seccomp and rlimits."""
