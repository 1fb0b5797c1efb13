"""Build and grade programming exercises. Students' code runs in a sandbox; hidden tests run outside it."""

VERSION = "0.1.0"
