"""Confine a process: namespaces, Landlock, seccomp, rlimits."""
