"""What is measured: every case by name, as plain data that any worker can read.

Standard library only, for Python 3.10 on: workers of peers with old needs import this file.
"""

import dataclasses
import difflib
import enum
import fnmatch
import typing
from collections.abc import Iterable, Mapping


class Canonical(enum.Enum):
    """The six released Perceiver IO models, by the name of their constructor in `perceiver.zoo`."""

    IMAGENET_FOURIER = "imagenet_fourier"
    IMAGENET_LEARNED = "imagenet_learned"
    IMAGENET_CONV = "imagenet_conv"
    LANGUAGE = "language"
    FLOW = "flow"
    KINETICS = "kinetics"


class Plain(typing.NamedTuple):
    """A Perceiver IO over given tokens, as every package has one: the sizes of the cases that are no released model.

    One cross-attend of one head as wide as the tokens, `depth` self-attends, one cross-attend of one head from
    `queries` learned queries, MLPs of their input's width, a linear map to `answers` numbers.
    """

    tokens: int
    channels: int
    latents: int
    width: int
    depth: int
    heads: int
    queries: int
    query_width: int
    answers: int


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing to be measured. batch: samples in one call."""

    batch: int = 1


@dataclasses.dataclass(frozen=True)
class Forward(Case):
    """Raw inputs to answers. Of a clip's 803k answers, 1 of 128 chunks of pixels and sound, and the label."""

    model: Canonical = Canonical.IMAGENET_FOURIER


@dataclasses.dataclass(frozen=True)
class Training(Case):
    """Loss, gradients, clipping to a global norm of 1, AdamW. masked: share of the bytes to be found (language)."""

    model: Canonical = Canonical.IMAGENET_FOURIER
    masked: float = 0.15


@dataclasses.dataclass(frozen=True)
class WholeClip(Case):
    """The Kinetics autoencoder's answers to all 802,816 pixels, 1,920 runs of sound and the label."""

    chunks: int = 128


@dataclasses.dataclass(frozen=True)
class InputScaling(Case):
    """Perceiver IO over `points` points: x, y, z and an intensity, each with `bands` Fourier bands of x, y, z.

    Ours gets raw points and computes positions and mask; peers get the encoded features [b, points, channels].
    """

    points: int = 1024
    bands: int = 16
    latents: int = 256
    width: int = 512
    depth: int = 6
    heads: int = 8
    classes: int = 10

    @property
    def channels(self) -> int:
        """Width of an encoded point: coordinates, intensity, sine and cosine of every band."""
        return 4 + 3 * 2 * self.bands

    @property
    def plain(self) -> Plain:
        """What a package without input adapters has to compute."""
        latent = (self.latents, self.width, self.depth, self.heads)
        return Plain(self.points, self.channels, *latent, 1, self.width, self.classes)


@dataclasses.dataclass(frozen=True)
class OutputScaling(Case):
    """The same model over few inputs, asked `queries` learned questions of `query_width` channels each."""

    queries: int = 1024
    query_width: int = 256
    inputs: int = 512
    input_width: int = 100
    latents: int = 256
    width: int = 512
    depth: int = 6
    heads: int = 8
    answers: int = 3

    @property
    def plain(self) -> Plain:
        """What a package without input adapters has to compute."""
        latent = (self.latents, self.width, self.depth, self.heads)
        return Plain(self.inputs, self.input_width, *latent, self.queries, self.query_width, self.answers)


@dataclasses.dataclass(frozen=True)
class Policy(Case):
    """A control policy: `cameras` pictures in patches and a state vector to a chunk of actions.

    Peers get the tokens of the pictures (flat patches with Fourier positions) and the state, padded to one width.
    """

    cameras: int = 2
    side: int = 96
    patch: int = 8
    state: int = 14
    bands: int = 8
    latents: int = 64
    width: int = 256
    depth: int = 4
    heads: int = 8
    steps: int = 16
    actions: int = 7

    @property
    def tokens(self) -> int:
        """Patches of all cameras and the state."""
        return self.cameras * (self.side // self.patch) ** 2 + 1

    @property
    def channels(self) -> int:
        """Width of a token: the pixels of a patch, its coordinates, its bands, and 4 channels of the modality."""
        return 3 * self.patch**2 + 2 + 2 * 2 * self.bands + 4

    @property
    def plain(self) -> Plain:
        """What a package without input adapters has to compute."""
        latent = (self.latents, self.width, self.depth, self.heads)
        return Plain(self.tokens, self.channels, *latent, self.steps, self.width, self.actions)


@dataclasses.dataclass(frozen=True)
class Contrastive(Case):
    """CLIP's loss, gradients and AdamW on `batch` pairs; two towers of the same width."""

    side: int = 96
    patch: int = 16
    channels: int = 256
    depth: int = 6
    heads: int = 4
    vocabulary: int = 8192
    length: int = 32
    joint: int = 128


KINDS = (Forward, Training, WholeClip, InputScaling, OutputScaling, Policy, Contrastive)


def _named() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    for batch in (1, 8):
        for model in Canonical:
            cases[f"forward/{model.value}{_suffix(batch)}"] = Forward(batch, model)
    cases["train/imagenet_fourier"] = Training(1, Canonical.IMAGENET_FOURIER)
    cases["train/language"] = Training(1, Canonical.LANGUAGE)
    cases["train/language@2"] = Training(2, Canonical.LANGUAGE)
    cases["decode/kinetics"] = WholeClip()
    for label, points in (("1k", 2**10), ("4k", 2**12), ("16k", 2**14), ("64k", 2**16), ("256k", 2**18), ("1M", 2**20)):
        cases[f"scaling/inputs/{label}"] = InputScaling(points=points)
    for label, queries in (("1k", 2**10), ("4k", 2**12), ("16k", 2**14), ("64k", 2**16), ("256k", 2**18)):
        cases[f"scaling/outputs/{label}"] = OutputScaling(queries=queries)
    cases["policy"] = Policy()
    cases["contrastive@8"] = Contrastive(8)
    return cases


def _suffix(batch: int) -> str:
    return "" if batch == 1 else f"@{batch}"


CASES: Mapping[str, Case] = _named()
"""Every case. A name without @ is batch 1."""


class UnknownNameError(ValueError):
    """No such case or peer; the message says what there is."""


def choose(wanted: Iterable[str], known: Iterable[str], what: str) -> list[str]:
    """The names that patterns such as `forward/*` select, in the order of `known`; no pattern selects all.

    Raises:
        UnknownNameError: a pattern that selects nothing.
    """
    names, patterns = list(known), list(wanted)
    chosen = set(names if not patterns else [])
    for pattern in patterns:
        found = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
        if not found:
            close = difflib.get_close_matches(pattern, names, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise UnknownNameError(f"no {what} {pattern!r}; {hint}known: {', '.join(names)}")
        chosen.update(found)
    return [name for name in names if name in chosen]


def to_json(case: Case) -> dict[str, typing.Any]:
    """A case as a flat object: its type's name and its fields."""
    fields = {field.name: getattr(case, field.name) for field in dataclasses.fields(case)}
    plain = {name: value.name if isinstance(value, enum.Enum) else value for name, value in fields.items()}
    return {"type": type(case).__name__, **plain}


def from_json(tree: Mapping[str, typing.Any]) -> Case:
    """What `to_json` wrote."""
    kind: typing.Any = next(kind for kind in KINDS if kind.__name__ == tree["type"])
    given = {name: value for name, value in tree.items() if name != "type"}
    return kind(**{name: Canonical[value] if name == "model" else value for name, value in given.items()})
