"""The process of one door; see `__main__`. What is to be guided by its coverage has to be imported in a special way."""

import contextlib
import importlib.util
import sys
from pathlib import Path

if __name__ == "__main__":
    watched = contextlib.nullcontext()
    if importlib.util.find_spec("atheris") is not None:
        import atheris

        watched = atheris.instrument_imports(include=["perceiver", "laspy"])
    with watched:
        from tests.fuzz.__main__ import one

    name, inputs, seed, folder = sys.argv[1:5]
    one(name, int(inputs), int(seed), Path(folder))
