"""Add the autograder's steps to nbgrader's pipeline and copy marks into its gradebook."""
