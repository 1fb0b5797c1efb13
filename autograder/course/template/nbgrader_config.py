"""Configure nbgrader: the autograder's steps grade a notebook instead of executing it."""

from autograder.nbgrader_plugin.configuration import configure

c = get_config()
configure(c, course_id="NAME_OF_THE_COURSE")
