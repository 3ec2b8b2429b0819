"""Turn a dataset of many files into a TFDS folder: `python -m data.prepare NAME --root FOLDER --to PREPARED`."""

import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.progress import track

from data import coco_captions_cc, emoji_noto64, fsdd, openclipart96, prepared
from data.records import Layout
from perceiver.errors import InputError, MissingExtraError

LAYOUTS: dict[str, Layout[Any]] = {
    dataset.LAYOUT.name: dataset.LAYOUT for dataset in (coco_captions_cc, emoji_noto64, fsdd, openclipart96)
}


def prepare(
    name: tyro.conf.Positional[Literal["coco_captions_cc", "emoji_noto64", "fsdd", "openclipart96"]],
    root: Path | None = None,
    to: Annotated[Path | None, tyro.conf.arg(metavar="PREPARED")] = None,
    beam: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="[OPTION=VALUE ...]")] = None,
) -> None:
    """Write a dataset as a TFDS folder of ArrayRecord files, then open and decode every record of it.

    The folder is PREPARED/NAME/1.0.0. Its items are those of the dataset's own files, divided the same way. To read
    it, name PREPARED as the root, or leave the root out and set PERCEIVER_PREPARED. TensorFlow is not needed.

    Args:
        name: The dataset.
        root: Folder that holds the dataset's folder; the variable PERCEIVER_DATA unless given, else data/files.
        to: Folder to write into; the variable PERCEIVER_PREPARED unless given.
        beam: Let an Apache Beam pipeline with these options do the writing, such as "runner=DirectRunner
            direct_num_workers=4 direct_running_mode=multi_processing". All its workers need to see both folders.
    """
    target = to or os.environ.get(prepared.VARIABLE)
    if not target:
        raise InputError(f"expected a folder to write into: --to PREPARED, or the variable {prepared.VARIABLE}")
    console = Console(stderr=True)
    watch = functools.partial(track, console=console, transient=True, disable=not console.is_terminal)
    options = None if beam is None else [f"--{option}" for option in beam]
    place = prepared.prepare(LAYOUTS[name], root, target, watch, options)
    counts = ", ".join(f"{split} {len(part)}" for split, part in prepared.load(LAYOUTS[name], target).items())
    print(f"{place}: {counts}; every record was opened")


def main(words: Sequence[str] | None = None) -> None:
    """Run the command; problems with the input end it with one line and exit code 2."""
    try:
        tyro.cli(prepare, args=words, prog="python -m data.prepare", config=(tyro.conf.DisallowNone,))
    except (InputError, MissingExtraError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
