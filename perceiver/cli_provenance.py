"""The commands about where things come from: verify and sign."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from perceiver.console import escape, parse
from perceiver.errors import InputError

CHANGED = 1
"""Exit code where something is not as it was recorded or signed."""
MARKS = {True: "as recorded", False: "CHANGED", None: "unknown"}


def verify_words(words: list[str]) -> None:
    """Run the command line `perceiver verify …`."""
    parse(verify, words, "verify")


def verify(
    path: Positional[Path], model: str | None = None, key: Path | None = None, secret: str | None = None
) -> None:
    """Check that a file is what a model made, or that a model folder is what somebody signed.

    Examples:
        perceiver verify answers/image.png                         beside it is image.png.provenance.json
        perceiver verify answers/image.png --model runs/digits     and it was this model
        perceiver verify runs/digits/model --key public.pem        beside it is model.sig
        perceiver verify story.txt --secret rosebud                whether its words carry a watermark

    The exit code is 1 where something was changed. docs/provenance.md says what this proves, and what it does not.

    Args:
        path: A file or index that has a record beside it; or, with --key, a model folder.
        model: The model that is said to have made it.
        key: Public key, PEM, of who signed the model folder.
        secret: Of a watermark that is looked for in a text file, UTF-8; no record is needed. A model that does not
            write bytes is named with --model, for its tokens.
    """
    from perceiver import provenance
    from perceiver.pretrained import from_pretrained

    if secret is not None:
        _look_for_mark(path, secret, model)
        return
    if key is not None:
        if model is not None:
            raise InputError("--model and --key: expected one of them; a signature is of a model folder itself")
        findings = [provenance.verify_signature(path, key)]
    else:
        findings = provenance.verify(path, None if model is None else from_pretrained(model))
    table = Table(title=escape(str(path)))
    for column in ("what", "", "that is"):
        table.add_column(column)
    for finding in findings:
        table.add_row(finding.what, MARKS[finding.fine], escape(finding.said))
    Console().print(table)
    if any(finding.fine is False for finding in findings):
        sys.exit(CHANGED)


def _look_for_mark(path: Path, secret: str, model: str | None) -> None:
    from perceiver.adapters.text import Text, encode_bytes
    from perceiver.errors import naming
    from perceiver.io.files import existing_file
    from perceiver.pretrained import from_pretrained
    from perceiver.watermark import Watermark

    with naming(str(path)):
        try:
            text = existing_file(path).read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"expected text in UTF-8, got another byte at {error.start}") from None
        encode: Callable[[str], np.ndarray] = encode_bytes
        if model is not None:
            adapter = getattr(from_pretrained(model).config, "text", None)
            if not isinstance(adapter, Text):
                raise InputError(f"--model {model}: expected a model that writes text")
            encode = adapter.encode
        found = Watermark(secret).evidence(encode(text))
    Console().print(
        f"{found.agreement:.1%} of the coins of {found.ids} ids agree with this secret, of a half by chance: "
        f"p = {found.p_value:.2g}"
    )


def sign_words(words: list[str]) -> None:
    """Run the command line `perceiver sign …`."""
    parse(sign, words, "sign")


def sign(folder: Positional[Path], key: Path) -> None:
    """Sign a model folder, so that others can tell whether it was changed since.

    Examples:
        openssl ecparam -genkey -name prime256v1 -noout -out private.pem
        openssl ec -in private.pem -pubout -out public.pem
        perceiver sign runs/digits/model --key private.pem         writes runs/digits/model.sig

    Needs the extra `signing`; nothing is sent anywhere.

    Args:
        folder: Model folder.
        key: Private key of an elliptic curve, PEM.
    """
    from perceiver import provenance

    written = provenance.sign(folder, key)
    Console().print(f"{escape(str(written))}: check it with perceiver verify {escape(str(folder))} --key PUBLIC.pem")
