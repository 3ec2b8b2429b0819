"""Published models: a folder, or an id on the Hugging Face Hub, to a config and float32 arrays.

Only data is read: JSON and safetensors. Source: huggingface_hub 2.4 (`snapshot_download`, `HfApi.model_info`, the
layout of its cache) and the safetensors format, https://github.com/huggingface/safetensors#format.
"""

import json
import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import deserialize

from perceiver.errors import InputError, naming
from perceiver.io.files import existing_file, refusing

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
WANTED = ("*.json", "model*.safetensors", "*.txt", "*.model")
"""Configs, weights, and what tokenizers keep outside JSON: never a pickle."""

UNREAD = {
    **dict.fromkeys(
        (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"), "a pickle, which can run code when it is read"
    ),
    **dict.fromkeys((".h5", ".msgpack", ".onnx"), "another framework's format"),
}
TIMEOUT = 4.0
"""Seconds for one attempt to connect to the Hub, and for each of its answers: then the cache is asked."""

CONVERT = (
    'python -c "import sys, transformers as t; f = sys.argv[1]; c = t.AutoConfig.from_pretrained(f); '
    'getattr(t, c.architectures[0]).from_pretrained(f).save_pretrained(f)" '
)


@dataclass(frozen=True)
class HubFiles:
    """The files of one model.

    Attributes:
        source: what the user named.
        folder: where the files are; has config.json and model.safetensors or its index.
    """

    source: str
    folder: Path

    def config(self) -> dict[str, Any]:
        """The content of config.json.

        Raises:
            InputError: missing, or not a JSON object.
        """
        return _read_json(self.folder / CONFIG)

    def optional_json(self, name: str) -> dict[str, Any] | None:
        """The content of another JSON file, such as preprocessor_config.json; None where there is none.

        Raises:
            InputError: not a JSON object.
        """
        return _read_json(self.folder / name) if os.path.exists(self.folder / name) else None

    def tensors(self) -> dict[str, np.ndarray]:
        """The weights by name, from model.safetensors, or from the shards that its index lists.

        Returns:
            floats of any width as float32, integers and bool as they are.

        Raises:
            InputError: missing, truncated, a header that disagrees with the content, a dtype without numpy's like,
                float64 beyond float32's range, or an index that names files elsewhere; shards and tensors that the
                index names and that are missing are listed together.
        """
        if os.path.exists(self.folder / WEIGHTS):
            return read_safetensors(self.folder / WEIGHTS)
        where = _read_json(self.folder / INDEX).get("weight_map")
        with naming(str(self.folder / INDEX)):
            if not isinstance(where, dict) or not where or not all(isinstance(name, str) for name in where.values()):
                raise InputError("expected a weight_map from tensors to files")
            shards = sorted(set(where.values()))
            for name in shards:
                if Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
                    raise InputError(f"expected plain names of safetensors files, got {name!r:.80}")
            problems = [f"missing {name}" for name in shards if not os.path.isfile(self.folder / name)]
        tensors: dict[str, np.ndarray] = {}
        for name in shards:
            found = {} if f"missing {name}" in problems else read_safetensors(self.folder / name)
            tensors |= {tensor: found[tensor] for tensor in where if where[tensor] == name and tensor in found}
            if found:
                problems += [f"{name} lacks {t}" for t in sorted(where) if where[t] == name and t not in found]
        if problems:
            raise InputError(f"{self.folder / INDEX}: expected all that it lists:\n  " + "\n  ".join(problems))
        return tensors


def resolve(source: str | Path, revision: str | None = None) -> HubFiles:
    """Find the files of a model, and fetch them where they are on the Hub only.

    Without a network, and with HF_HUB_OFFLINE=1, the Hub's own cache (HF_HUB_CACHE, HF_HOME) is used.

    Args:
        source: a folder with config.json and model.safetensors, or an id such as "deepmind/language-perceiver".
            A Path, what exists, and what starts with . or / or ~ is a folder and never sent to the Hub.
        revision: for an id, a branch, tag, commit or pull request such as "refs/pr/1".

    Raises:
        InputError: neither such a folder nor in the cache nor to be had from the Hub (the message says why, and what
            to do), or weights in other formats only, which are not read.
    """
    name = os.fspath(source)
    with naming(name):
        local = (
            not isinstance(source, str) or name.startswith((".", "~")) or os.path.isabs(name) or os.path.exists(name)
        )
        if not local:
            return HubFiles(name, _snapshot(name, revision))
        folder = Path(os.path.expanduser(name))
        if revision is not None:
            raise InputError(f"expected a revision for ids on the Hub only, got {revision!r} for a folder")
        if not os.path.isdir(folder):
            raise InputError(
                f"expected a folder with {CONFIG}, got {'a file' if os.path.exists(folder) else 'nothing'}"
            )
        _check(_names(folder), f"{CONVERT}{shlex.quote(str(folder))}")
        return HubFiles(name, folder)


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Read one safetensors file: floats of any width as float32, integers and bool as they are.

    Raises:
        InputError: no such file, truncated, a header that disagrees with the content, or a dtype without numpy's like.
    """
    with naming(str(path)):
        file = existing_file(path)
        with refusing("safetensors"):
            entries = deserialize(file.read_bytes())
        tensors = {}
        while entries:
            name, entry = entries.pop()
            with naming(f"{name:.99}"), refusing("values within float32"):
                tensors[name] = _array(entry["dtype"], entry["data"]).reshape(entry["shape"])
        return dict(sorted(tensors.items()))


DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "?"}
DTYPES |= {f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)}


def _array(dtype: str, data: bytes) -> np.ndarray:
    if dtype not in DTYPES:
        raise InputError(f"expected one of the dtypes {', '.join(DTYPES)}, got {dtype}")
    values = np.frombuffer(data, DTYPES[dtype])
    if dtype == "BF16":  # the upper half of a float32
        return (values.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(all="ignore", over="raise"):
        return values.astype(np.float32) if values.dtype.kind == "f" else values.copy()


def _read_json(path: Path) -> dict[str, Any]:
    with naming(str(path)):
        file = existing_file(path)
        with refusing("JSON"):
            content = json.loads(file.read_bytes())
        if not isinstance(content, dict):
            raise InputError(f"expected a JSON object, got {type(content).__name__}")
        return content


def _names(folder: Path) -> list[str]:
    with refusing("a folder that can be listed"):
        return sorted(path.name for path in folder.iterdir())


def _check(names: Iterable[str], convert: str) -> None:
    """Refuse a model by the names of its files."""
    names = sorted(names)
    found = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "") or "nothing"
    if WEIGHTS not in names and INDEX not in names:
        unread = [(name, UNREAD[suffix]) for name in names if (suffix := Path(name).suffix.lower()) in UNREAD]
        if unread:
            said = " and ".join(f"{name} ({why})" for name, why in unread[:5])
            if not any(name.endswith(".bin") for name, _ in unread):
                convert = "with the framework that it comes from"
            raise InputError(f"expected {WEIGHTS}, got only {said}. Convert it once: {convert}")
        raise InputError(f"expected {WEIGHTS} or {INDEX}, found {found}")
    if CONFIG not in names:
        raise InputError(f"expected {CONFIG}, found {found}")


def _snapshot(repository: str, revision: str | None) -> Path:
    """The folder of a repository in the Hub's cache, filled if it can be."""
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise InputError(f"expected a folder, or an id such as owner/name, got neither: {error}") from None
    beside = repository.rsplit("/", 1)[-1]
    convert = (
        f"hf download {repository} --local-dir {beside} && {CONVERT}{beside} (and pass that folder), or name a "
        f"revision that has {WEIGHTS}, such as the Hub's own conversion, revision='refs/pr/N' with the number of the "
        "pull request on the model's page"
    )
    options: dict[str, Any] = {"revision": revision, "allow_patterns": WANTED, "ignore_patterns": "*/*"}
    problem = "HF_HUB_OFFLINE is set, so that the Hub was not asked"
    if not constants.HF_HUB_OFFLINE:
        try:
            # Asked first since it takes a time limit, which snapshot_download's own first request does not, and lists
            # what is never downloaded.
            files = HfApi().model_info(repository, revision=revision, timeout=TIMEOUT).siblings or []
            _check([file.rfilename for file in files if "/" not in file.rfilename], convert)
            return Path(snapshot_download(repository, etag_timeout=TIMEOUT, **options))
        except InputError:
            raise
        except Exception as error:  # httpx's, OSError and others, which differ between versions of huggingface_hub
            problem = _problem(error, repository, revision)
    try:
        cached = Path(snapshot_download(repository, local_files_only=True, **options))
    except Exception:
        raise InputError(
            f"neither a local folder nor whole in the cache ({constants.HF_HUB_CACHE}), and {problem}. Check the "
            f"spelling, connect to the network, or pass a folder with {CONFIG} and {WEIGHTS}"
        ) from None
    with naming(f"in the cache ({cached}), since {problem}"):
        _check(_names(cached), convert)
    return cached


def _problem(error: Exception, repository: str, revision: str | None) -> str:
    """Why the Hub did not give the files."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return f"its terms are to be accepted at https://huggingface.co/{repository} first, then log in: hf auth login"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the Hub has no revision {revision!r} of it"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "the Hub has no public model of this name (for a private one log in: hf auth login)"
    if isinstance(error, errors.HfHubHTTPError):
        return f"the Hub answered with status {error.response.status_code}"
    return f"the Hub could not be reached ({type(error).__name__}: {str(error)[:200]})"
