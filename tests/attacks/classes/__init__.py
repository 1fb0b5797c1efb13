"""Define classes that mix hostile submissions with honest ones by `ada` and `zoe`, and define their expected results.

`cases.ALL` lists the cases, `running.Course` grades a class in a subprocess and measures it, and
`../test_classes.py` tests the classes.
"""
