"""The command `perceiver transcribe`: what is said in a sound."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import Positional

from perceiver.console import parse
from perceiver.errors import InputError, naming

if TYPE_CHECKING:
    from perceiver.ctc import Beam
    from perceiver.transcription import Transcript


def transcribe_words(words: list[str]) -> None:
    """Run the command line `perceiver transcribe …`."""
    parse(transcribe, words, "transcribe")


@dataclasses.dataclass(frozen=True)
class Search:
    """How the text is searched.

    Attributes:
        beam: Texts that are kept at each step; 0 takes the likeliest letter of each step.
        letters: Write letter by letter, with a model that has a decoder which spells; not by CTC.
        texts: File of what may be said, a text a line, whose letters are counted to help to choose; needs a beam.
        language: Language model of bytes that helps in its place, such as runs/language_model.
        weight: Of the log-probabilities of either.
        bonus: Added for each letter where one of them helps.
    """

    beam: int = 0
    letters: bool = False
    texts: Path | None = None
    language: str | None = None
    weight: float = 0.5
    bonus: float = 0.5


LIKELIEST = Search()


def transcribe(
    file: Positional[Path],
    model: str,
    search: Annotated[Search, tyro.conf.arg(name="")] = LIKELIEST,
    overlap: float = 1.0,
    words: bool = False,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Write down what is said in a sound of any length and rate.

    Examples:
        perceiver transcribe call.wav --model runs/speech
        perceiver transcribe call.wav --model runs/speech --words         and when, in seconds
        perceiver transcribe call.wav --model runs/speech --json
        perceiver transcribe call.wav --model runs/speech --beam 16 --texts digits.txt
        perceiver transcribe call.wav --model runs/speech --beam 16 --language runs/language_model
        perceiver transcribe call.wav --model runs/speech/letters --letters --beam 4

    Args:
        file: Sound file, or a film with sound.
        model: Model folder, or folder of a run, of a model that has an output CTC.
        search: How the text is searched.
        overlap: Seconds that the windows of a long sound share.
        words: Print a line for each word, with its start and end in seconds.
        as_json: Print {"text": …, "seconds": …, "complete": …, "words": …} and nothing else on standard output.
    """
    from perceiver.pretrained import from_pretrained

    found = _found(from_pretrained(model), str(file), model, search, overlap)
    if as_json:
        rows = [word._asdict() for word in found.words]
        told = {"text": found.text, "seconds": found.seconds, "complete": found.complete, "words": rows}
        print(json.dumps(told, ensure_ascii=False))
    elif words:
        for word in found.words:
            print(f"{word.start:9.2f} {word.end:9.2f}  {word.text}")
    else:
        print(found.text)


def _found(loaded: Any, file: str, model: str, search: Search, overlap: float) -> "Transcript":
    """The transcript, in the way that is asked for."""
    from perceiver.dictation import dictate_all
    from perceiver.model import Perceiver
    from perceiver.speller import Speller
    from perceiver.transcription import transcribe as write_down

    if search.letters:
        if not isinstance(loaded, Speller):
            raise InputError(f"--letters: expected a model with a decoder that spells, {model} has none")
        if search.language is not None or search.texts is not None:
            raise InputError("--language and --texts: expected a search by CTC, not --letters")
        return dictate_all(loaded, [file], max(search.beam, 1), overlap)[0]
    hears = loaded.hearing if isinstance(loaded, Speller) else loaded
    if not isinstance(hears, Perceiver):
        raise InputError(f"{model}: expected a model that hears, got a {type(loaded).__name__}")
    return write_down(hears, file, _beam(hears, search), overlap)


def _beam(loaded: Any, search: Search) -> "Beam | None":
    """How widely is searched, and by whose advice."""
    from perceiver.ctc import Beam
    from perceiver.fusion import counted_scorer, letter_scorer
    from perceiver.io.files import existing_file, refusing
    from perceiver.pretrained import from_pretrained
    from perceiver.transcription import steps_of

    helps = [name for name in ("texts", "language") if getattr(search, name) is not None]
    if helps and search.beam == 0:
        raise InputError(f"--{helps[0]}: expected a --beam to search with, such as --beam 16")
    if len(helps) == 2:
        raise InputError("--texts and --language: expected one of them")
    if not helps:
        return Beam(search.beam) if search.beam else None
    head = loaded.config.outputs[steps_of(loaded.config).output].head
    if search.texts is None:
        scorer = letter_scorer(from_pretrained(str(search.language)), head)
    else:
        with naming(str(search.texts)), refusing("texts in UTF-8, one a line"):
            lines = existing_file(search.texts).read_text(encoding="utf-8").splitlines()
            scorer = counted_scorer([line.strip() for line in lines if line.strip()], head)
    return Beam(search.beam, scorer, search.weight, search.bonus)
