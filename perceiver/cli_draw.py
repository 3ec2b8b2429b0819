"""The command that draws: pictures of a class."""

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from tyro.conf import Positional

from perceiver.console import escape, parse
from perceiver.errors import InputError


def draw_words(words: list[str]) -> None:
    """Run the command line `perceiver draw …`."""
    parse(draw, words, "draw")


def draw(
    model: Positional[str],
    label: tuple[str, ...] = (),
    each: int = 1,
    steps: int = 8,
    temperature: float = 1.0,
    noise: float = 4.5,
    seed: int = 0,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("drawn.png"),
    record: bool = False,
) -> None:
    """Let a model draw pictures of classes, a row for each class in one PNG file.

    Examples:
        perceiver draw runs/masked_images --label seven
        perceiver draw runs/masked_images --label 0 1 2 3 --each 8 -o digits.png --record

    The same seed gives the same pictures. A picture comes at the model's own resolution, level by level.

    Args:
        model: Model folder or folder of a run, of a model that fills in pictures.
        label: Classes, by number or name.
        each: Pictures of each class, side by side.
        steps: In which a picture is filled in; as many as it has pixels draws one after the other.
        temperature: Below 1 the likely becomes likelier; 0 always takes the likeliest level.
        noise: How much chance there is in which pixels come first.
        seed: Of what is drawn.
        out: File to write.
        record: Write beside that file which model made it, from what; see perceiver verify.
    """
    import numpy as np

    from perceiver.generation import Sampling
    from perceiver.io.images import encode_png
    from perceiver.masked_tokens import Filling, canvas, drawn
    from perceiver.pretrained import from_pretrained
    from perceiver.provenance import write_records
    from perceiver.saving import replace_durably

    if each < 1:
        raise InputError(f"--each: expected at least 1, got {each}")
    loaded = from_pretrained(model)
    name = canvas(loaded.config)
    labels = [one for one in label for _ in range(each)]
    levels = drawn(loaded, labels, filling=Filling(steps, Sampling(temperature), noise), seed=seed)
    rows = loaded.config.inputs[name].pixels(levels).reshape(len(label), each, *levels.shape[1:])
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_durably(out, encode_png(np.concatenate(np.concatenate(rows, axis=1), axis=1)[..., None]))
    if record:
        write_records(
            [out], loaded, {f"label {number}": one for number, one in enumerate(label)}, seed=seed, name=model
        )
    Console().print(f"written: {escape(str(out))}", highlight=False, soft_wrap=True)
