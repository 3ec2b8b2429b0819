"""Tiny Shakespeare: a megabyte of his plays, for models of text byte by byte.

Origin: https://github.com/karpathy/char-rnn (data/tinyshakespeare/input.txt). Licence: public domain.
Layout: tinyshakespeare/input.txt. Splits in the order of the text: the first 90 % training, 5 % validation, 5 % test.
(nanoGPT trains on the same 90 % and validates on the other 10 %.)
"""

from pathlib import Path

from data.root import folder
from perceiver.errors import InputError, naming
from perceiver.io.files import existing_file

ORIGIN = "https://github.com/karpathy/char-rnn (data/tinyshakespeare/input.txt)"
ENDS = {"train": 0.9, "validation": 0.95, "test": 1.0}


def load(root: str | Path | None = None) -> dict[str, bytes]:
    """The splits "train", "validation" and "test": UTF-8, never cut inside a character. An item is a byte.

    Raises:
        InputError: the dataset is absent, or the file is empty or not UTF-8.
    """
    path = folder("tinyshakespeare", root, ORIGIN) / "input.txt"
    with naming(str(path)):
        data = existing_file(path).read_bytes()
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"expected text in UTF-8, got byte {data[error.start]} at {error.start}") from None
    splits, start = {}, 0
    for name, end in ENDS.items():
        stop = int(end * len(data))
        while stop < len(data) and data[stop] & 0xC0 == 0x80:  # inside a character
            stop += 1
        splits[name], start = data[start:stop], stop
    return splits
