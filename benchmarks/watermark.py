"""`python -m benchmarks.watermark`: how often a watermark is found in texts that have it, and in real ones without."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from perceiver.adapters.text import Bytes
from perceiver.compiled import keep_programs
from perceiver.console import described, fail
from perceiver.continuation import Wish, continued
from perceiver.errors import ConfigError, InputError, MissingExtraError
from perceiver.generation import Sampling
from perceiver.io.files import read_utf8
from perceiver.pretrained import from_pretrained
from perceiver.watermark import Watermark

LENGTHS = (50, 100, 200, 400)
SECRETS = tuple(f"secret {number}" for number in range(20))
"""By which real text is looked at; the first is also what is written with."""
OPENING = 16
"""Bytes of real text that a model goes on from."""


def watermark(
    model: Positional[Path],
    text: Positional[Path],
    texts: int = 64,
    temperature: float = 1.0,
    top_p: float | None = None,
    level: float = 0.01,
) -> None:
    """Share of texts whose p-value is below a level: real ones for many secrets, and written ones for theirs.

    Examples:
        python -m benchmarks.watermark runs/language_model play.txt
        python -m benchmarks.watermark runs/language_model play.txt --temperature 0.7

    Args:
        model: Model folder or folder of a run, of an autoregressive model of bytes.
        text: Real text in UTF-8, cut into pieces, that the model has not learned.
        texts: That are written.
        temperature: Of the writing.
        top_p: Of the writing.
        level: The p-value from which on a text counts as found.
    """
    loaded = from_pretrained(model)
    codec = loaded.config.text
    if not isinstance(codec, Bytes):
        raise InputError(f"{model}: expected a model of bytes, got one of {type(codec).__name__}")
    real = codec.encode(read_utf8(text))
    openings = [
        codec.decode(real[start : start + OPENING]) for start in np.linspace(0, len(real) - 500, texts, dtype=int)
    ]
    mark = Watermark(SECRETS[0])
    with_it, without = (
        [
            codec.encode(told.text)
            for told in continued(loaded, openings, Wish(None, Sampling(temperature, None, top_p, watermark=own)))
        ]
        for own in (mark, None)
    )
    table = Table(title=f"p-value below {level}, temperature {temperature}, top-p {top_p}")
    for column in (
        "bytes",
        "real pieces",
        "real, mean of secrets",
        "real, worst one",
        "written without",
        "written with",
    ):
        table.add_column(column, justify="right")
    for length in LENGTHS:
        pieces = [real[start : start + length] for start in range(0, len(real) - length + 1, length)]
        by_secret = [share(Watermark(secret), pieces, level) for secret in SECRETS]
        told = [share(mark, [own[:length] for own in rows if len(own) >= length], level) for rows in (without, with_it)]
        numbers = [float(np.mean(by_secret)), max(by_secret), *told]
        table.add_row(str(length), f"{len(pieces):,}", *[f"{number:.1%}" for number in numbers])
    Console().print(table)


def share(mark: Watermark, pieces: Sequence[np.ndarray], level: float) -> float:
    """Of pieces in which a mark is found; not a number where there are none."""
    return float(np.mean([mark.evidence(piece).p_value < level for piece in pieces])) if pieces else float("nan")


def main() -> None:
    """Run the command line."""
    try:
        keep_programs()
        tyro.cli(watermark, prog="benchmarks.watermark", description=described(watermark))
    except (InputError, ConfigError, MissingExtraError) as error:
        fail(str(error))


if __name__ == "__main__":
    main()
