"""Recipes, one file each. Not installed; `perceiver train experiments/NAME.py` runs them from the repository's root."""
