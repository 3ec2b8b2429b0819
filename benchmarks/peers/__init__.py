"""The sides of a comparison: one file each, imported by its own worker only."""
