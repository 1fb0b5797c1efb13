"""Define classes with a hostile submission by `eve`, honest ones by `ada` and `zoe`, and their expected results.

`cases.ALL` lists the cases, `running.Course` grades a class in a subprocess and measures it, and
`../test_classes.py` tests the classes.
"""
