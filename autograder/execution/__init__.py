"""Run one exercise's code in the sandbox, as its hidden grader sees it."""
