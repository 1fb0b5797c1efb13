"""Hostile classes: what `eve` hands in beside the honest `ada` and `zoe`, and what everybody must get for it.

`cases.ALL` lists them, `running.Course` grades one as a subprocess and measures it, `../test_classes.py` runs them.
"""
