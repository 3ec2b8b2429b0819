"""The command that writes: generate."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console
from tyro.conf import Positional

from perceiver.console import escape, parse
from perceiver.errors import InputError

if TYPE_CHECKING:
    from perceiver.continuation import Continued, Piece

RULE = "\n\n" + "-" * 20 + "\n\n"
"""Between the texts of several prompts."""
UNSHOWN = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)], "\ufffd")
"""Control characters but tab and line feed, which a terminal would obey: not for a model to write there."""


def generate_words(words: list[str]) -> None:
    """Run the command line `perceiver generate …`."""
    parse(generate, words, "generate")


def generate(
    model: Positional[str],
    prompt: tuple[str, ...] = (),
    file: Path | None = None,
    about: tuple[str, ...] = (),
    most: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition: float = 1.0,
    stop: tuple[str, ...] = (),
    seed: int = 0,
    watermark: str | None = None,
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    record: bool = False,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    r"""Let a model write on from a prompt, to be read as it comes.

    Examples:
        perceiver generate runs/language_model --prompt "ROMEO:"
        perceiver generate runs/language_model --prompt "ROMEO:" --temperature 0.8 --top-p 0.95 --stop "JULIET:"
        perceiver generate runs/language_model --prompt "ROMEO:" "JULIET:" --most 200 --json
        perceiver generate runs/language_model --file letter.txt --seed 3 -o letters.txt --record
        perceiver generate runs/captions --about media=photo.jpg --temperature 0

    A text ends where the model ends it, in front of a stop string, after --most tokens, or where the model takes no
    more; standard error says which. Of several prompts the first is shown as it comes, and the others after it. Bytes
    that are no UTF-8 are shown as U+FFFD. The same seed gives the same text.

    Args:
        model: Model folder or folder of a run, of an autoregressive model of text, a narrator or a captioner.
        prompt: What to go on from; several are written at once. An empty one, "", lets the model start.
        file: One more prompt, read from a text file in UTF-8.
        about: What a narrator or captioner is to tell of, each as NAME=FILE; without a prompt it starts itself. The
            names are those of the model's inputs, which perceiver inspect shows; a captioner's one is media.
        most: Tokens to write at most; for a model of bytes, bytes. As many as the model takes unless given.
        temperature: Below 1 the likely becomes likelier; 0 always takes the likeliest.
        top_k: Draw among so many of the likeliest tokens.
        top_p: Draw among the fewest tokens that have this much of the probability.
        repetition: Above 1 makes what the text has already less likely.
        stop: Strings in front of which a text ends.
        seed: Of what is drawn.
        watermark: A secret by which it is drawn, so that perceiver verify FILE --secret can tell; see
            docs/provenance.md.
        out: Write the texts into this file too, prompts included, with a line of dashes between several.
        record: Write beside that file which model made it, from what; see perceiver verify.
        as_json: Print the texts as JSON once they are whole, and nothing else on standard output.
    """
    from perceiver.captioner import Captioner
    from perceiver.continuation import Wish, joined, stream
    from perceiver.generation import Sampling
    from perceiver.io.files import read_utf8
    from perceiver.narrator import Narrator
    from perceiver.pretrained import from_pretrained
    from perceiver.telling import tell
    from perceiver.watermark import Watermark

    if record and out is None:
        raise InputError("--record: expected a file to write beside, by --out")
    prompts = [*prompt, *([] if file is None else [read_utf8(file)])]
    sources = _sources(about)
    if not prompts and not sources:
        raise InputError("expected something to go on from, by --prompt or --file, or to tell of, by --about")
    prompts = prompts or [""]
    mark = None if watermark is None else Watermark(watermark)
    wish = Wish(most, Sampling(temperature, top_k, top_p, repetition, mark), seed, stop)
    loaded = from_pretrained(model)
    if isinstance(loaded, Narrator | Captioner):
        pieces = tell(loaded, sources, prompts, wish)
    elif sources:
        raise InputError(f"--about: expected none, as a {type(loaded).__name__} only goes on from texts")
    else:
        pieces = stream(loaded, prompts, wish)
    texts = joined(pieces if as_json else _shown(pieces, prompts), len(prompts))
    if as_json:
        _print_json(prompts, texts)
    _say_ends(texts)
    if out is not None:
        _save(out, prompts, texts)
        if record:
            _record(out, loaded, model, prompts, sources, seed)
        Console(stderr=True).print(f"written: {escape(str(out))}", highlight=False, soft_wrap=True)


def _sources(about: Sequence[str]) -> dict[str, str]:
    """Files by the name of the input."""
    sources = {}
    for text in about:
        name, equals, file = text.partition("=")
        if not name or not equals or not file or name in sources:
            raise InputError(f"--about: expected NAME=FILE, each name once, got {text!r}")
        sources[name] = file
    return sources


def _shown(pieces: Iterable["Piece"], prompts: Sequence[str]) -> Iterator["Piece"]:
    """The same pieces, printed: of one text as they come, of those behind it once it has ended."""
    waiting, ended = list(prompts), [False] * len(prompts)
    shown = 0
    _print(waiting[0])
    waiting[0] = ""
    for piece in pieces:
        yield piece
        waiting[piece.row] += piece.text
        ended[piece.row] = piece.ended is not None
        while shown < len(prompts):
            _print(waiting[shown])
            waiting[shown] = ""
            if not ended[shown]:
                break
            shown += 1
            _print(RULE if shown < len(prompts) else "\n")


def _print(text: str) -> None:
    sys.stdout.write(text.translate(UNSHOWN))
    sys.stdout.flush()


def _print_json(prompts: Sequence[str], texts: Sequence["Continued"]) -> None:
    told = [
        {"prompt": prompt, "text": text.text, "ended": text.ended.name.lower()}
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    print(json.dumps(told, ensure_ascii=False))


def _say_ends(texts: Sequence["Continued"]) -> None:
    console = Console(stderr=True)
    for number, text in enumerate(texts):
        which = f"text {number}: " if len(texts) > 1 else ""
        console.print(f"{which}{text.ended.value}", highlight=False, style="dim", soft_wrap=True)


def _save(out: Path, prompts: Sequence[str], texts: Sequence["Continued"]) -> None:
    """Prompts and what follows them, whole or not at all."""
    from perceiver.saving import replace_durably

    whole = [prompt + text.text for prompt, text in zip(prompts, texts, strict=True)]
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_durably(out, (RULE.join(whole) + "\n").encode())


def _record(out: Path, loaded: Any, name: str, prompts: Sequence[str], sources: Mapping[str, str], seed: int) -> None:
    from perceiver.provenance import write_records

    inputs: dict[str, Any] = {f"prompt {number}": prompt for number, prompt in enumerate(prompts)}
    inputs |= {what: Path(source) if Path(source).exists() else source for what, source in sources.items()}
    write_records([out], loaded, inputs, seed=seed, name=name)
