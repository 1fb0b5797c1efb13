"""Define classes of students with hostile submissions by `eve`, honest ones by `ada` and `zoe`, and the expected results.

`cases.ALL` lists the cases, `running.Course` grades a class in a subprocess and measures it, and
`../test_classes.py` tests the classes.
"""
