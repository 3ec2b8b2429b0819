"""Datasets, one file each: origin, licence, layout, splits; README.md lists them all.

Not installed; used from the repository's root. What they share: `root` says where files lie, `splits` how items are
divided, `lazy`, `rows`, `pictures`, `arrays` and `records` how they are read, and `prepared` how a dataset of many
files becomes a TFDS folder, which `python -m data.prepare` writes.
"""
