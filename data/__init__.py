"""Datasets, one file each: origin, licence, splits. Not installed; used from the repository's root."""
