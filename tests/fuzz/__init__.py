"""Random bytes at every door that files come through: `python -m tests.fuzz --help`."""
