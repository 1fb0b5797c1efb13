"""Configure nbgrader to grade notebooks with the autograder instead of executing them."""

from autograder.nbgrader_plugin.configuration import configure

c = get_config()
configure(c, course_id="transformers")
