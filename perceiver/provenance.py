"""Where a file came from: a record beside it of the model, the inputs and the versions that made it, and its check.

docs/provenance.md says what such a record can prove, and what it cannot.
"""

import datetime
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from perceiver.config import network_json, preprocessing_json
from perceiver.embedding import digest_of
from perceiver.errors import InputError, require
from perceiver.model import Model
from perceiver.saving import MANIFEST, dump, entry_of, read_folder, read_json, replace_durably
from perceiver.training.report import machine

ENDING = ".provenance.json"
FORMAT = 1
SIGNATURE = ".sig"


class Finding(NamedTuple):
    """What was looked at, whether it is as recorded (None: cannot be told), and what there is to say."""

    what: str
    fine: bool | None
    said: str


def beside(path: Path) -> Path:
    """Where the record of a file or a folder is."""
    return path.with_name(path.name + ENDING)


def write_records(
    paths: Sequence[str | Path], model: Model, inputs: Mapping[str, Any], *, seed: int | None = None, name: str = ""
) -> list[Path]:
    """Write the records of what a model has made of some inputs, beside it.

    paths: files, or folders with a manifest, such as an index. inputs: what the model was given, by what it was for:
    files (which are named in the record), texts or arrays. seed: of the sampling, where there was any. name: what the
    model is called, such as its folder or its id on the Hub.

    Raises:
        InputError: no such file.
    """
    made = {
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "model": {
            "name": name,
            "digest": digest_of(model),
            "config_sha256": entry_of(dump(network_json(model.config)))["sha256"],
            "preprocessing_sha256": entry_of(dump(preprocessing_json(model.config)))["sha256"],
        },
        "inputs": {what: _input(source) for what, source in inputs.items()},
        "seed": seed,
        "machine": machine(),
    }
    written = []
    for path in map(Path, paths):
        file = {"name": path.name, **entry_of(_content(path))}
        replace_durably(beside(path), dump({"format": FORMAT, "file": file, **made}))
        written.append(beside(path))
    return written


def verify(path: str | Path, model: Model | None = None) -> list[Finding]:
    """Compare a file with the record beside it, its inputs where they still are, and a model where one is given.

    Raises:
        InputError: no such file, no record, or one that cannot be read.
    """
    path = Path(path)
    if not beside(path).is_file():
        raise InputError(f"{path}: expected its record {beside(path).name} beside it, there is none")
    record = read_json(beside(path))
    try:
        if record["format"] != FORMAT:
            raise InputError(f"{beside(path)}: expected format {FORMAT}, got {record['format']!r}")
        findings = [_compared("the file", path, record["file"])]
        findings += [_found(what, entry) for what, entry in record["inputs"].items()]
        theirs = record["model"]["digest"]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{beside(path)}: expected a record of provenance, got one without {error}") from error
    if model is not None:
        same = digest_of(model) == theirs
        findings.append(Finding("the model", same, "is the one" if same else "is another one than made it"))
    return findings


def sign(folder: str | Path, private_key: str | Path) -> Path:
    """Sign a model folder with an elliptic-curve key (PEM), offline; the signature is FOLDER.sig beside it.

    Raises:
        InputError: a damaged folder, or a key that cannot be used.
        MissingExtraError: model-signing is not installed.
    """
    require("model_signing", "signing")
    from model_signing import signing

    folder = Path(folder)
    read_folder(folder)
    signature = folder.with_name(folder.name + SIGNATURE)
    try:
        signing.Config().use_elliptic_key_signer(private_key=Path(private_key)).sign(folder, signature)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{private_key}: expected an elliptic-curve private key in PEM, got {error}") from error
    return signature


def verify_signature(folder: str | Path, public_key: str | Path) -> Finding:
    """Whether a model folder is as the owner of a key signed it.

    Raises:
        InputError: no signature beside it, or a key that cannot be used.
        MissingExtraError: model-signing is not installed.
    """
    require("model_signing", "signing")
    from model_signing import verifying

    folder = Path(folder)
    signature = folder.with_name(folder.name + SIGNATURE)
    if not signature.is_file():
        raise InputError(f"{folder}: expected its signature {signature.name} beside it, there is none")
    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=Path(public_key))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{public_key}: expected an elliptic-curve public key in PEM, got {error}") from error
    try:
        verifier.verify(folder, signature)
    except Exception as error:  # of any kind, as the package raises them: none of them is a match
        return Finding("the signature", False, " ".join(str(error).split()))
    return Finding("the signature", True, f"is of the owner of {public_key}")


def _content(path: Path) -> bytes:
    """What stands for a file or a folder: its bytes, or its manifest's, once everything agrees with that."""
    try:
        if path.is_dir():
            read_folder(path)
            return (path / MANIFEST).read_bytes()
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _input(source: Any) -> dict[str, Any]:
    if isinstance(source, os.PathLike):
        return {"path": os.fspath(source), **entry_of(_content(Path(source)))}
    if isinstance(source, str):
        return {"text": source, **entry_of(source.encode())}
    array = np.ascontiguousarray(source)
    return {"dtype": array.dtype.name, "shape": list(array.shape), **entry_of(array.tobytes())}


def _compared(what: str, path: Path, entry: Mapping[str, Any]) -> Finding:
    try:
        found = entry_of(_content(path))
    except InputError as error:
        return Finding(what, False, str(error))
    if found == {name: entry[name] for name in ("sha256", "bytes")}:
        return Finding(what, True, f"{path} is as it was made")
    return Finding(what, False, f"{path} was changed: {entry['bytes']} bytes were recorded, there are {found['bytes']}")


def _found(what: str, entry: Mapping[str, Any]) -> Finding:
    if "path" not in entry:
        return Finding(what, None, "is no file, so that only its sha256 is known")
    if not Path(entry["path"]).exists():
        return Finding(what, None, f"{entry['path']} is not there any more")
    return _compared(what, Path(entry["path"]), entry)
