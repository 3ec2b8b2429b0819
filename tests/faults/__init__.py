"""Faults that are made on purpose, and what must come of each: `python -m tests.faults --help`."""
