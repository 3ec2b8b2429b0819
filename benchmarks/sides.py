"""Who is compared: peers by name, where they live, and how ours and each of them is started."""

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.cases import Case, Contrastive, Training
from benchmarks.peers.contract import Variant
from benchmarks.process import Program

ENVIRONMENTS = Path(__file__).parents[1] / ".environments"
"""Where `benchmarks.environments` puts what it makes."""


@dataclasses.dataclass(frozen=True)
class Side:
    """One side of a comparison. name: as rows call it. variants: ways to compute the same; the fastest counts."""

    name: str
    program: Program
    variants: tuple[Variant, ...] = (Variant.PLAIN,)


@dataclasses.dataclass(frozen=True)
class Peer:
    """A package that we compare ourselves with.

    module: its file in `benchmarks.peers`. install: what to tell pip. python: the version that it needs; None takes
    ours. checkout: it is code in a folder, which the caller names. same: its released models have our parameters.
    batches: measured at batch 8 without being named; the others would double the time of a run.
    """

    name: str
    module: str
    install: tuple[str, ...]
    variant: Variant = Variant.PLAIN
    python: str | None = None
    checkout: str | None = None
    same: bool = True
    batches: bool = False

    def side(self, python: str, checkout: Path | None = None) -> Side:
        """The peer in an environment."""
        paths = () if checkout is None else (str(checkout),)
        return Side(self.name, Program(self.module, python, paths), (self.variant,))

    @property
    def advice(self) -> str:
        """How to get it."""
        pip = " ".join(f"'{package}'" for package in self.install)
        own = f"python -m benchmarks.environments {self.name}"
        code = f", and give {self.checkout}" if self.checkout else ""
        return f"pip install {pip}{code}, or {own}" if self.python is None else f"{own}{code}"


TORCH = ("torch==2.13.0", "transformers>=5,<6")
_PEERS = [
    Peer("transformers", "benchmarks.peers.hugging_face", TORCH, batches=True),
    Peer("transformers-compiled", "benchmarks.peers.hugging_face", TORCH, Variant.COMPILED, batches=True),
    Peer(
        "perceiver-io",
        "benchmarks.peers.krasserm",
        ("perceiver-io[text,image]==0.6.0", "numpy<2", "setuptools<70"),
        python="3.10",
    ),
    Peer(
        "perceiver-pytorch", "benchmarks.peers.lucidrains", ("torch==2.13.0", "perceiver-pytorch==0.11.0"), same=False
    ),
    Peer(
        "deepmind",
        "benchmarks.peers.deepmind",
        ("dm-haiku", "jax", "einops"),
        checkout="--deepmind PATH of a checkout of github.com/google-deepmind/deepmind-research",
    ),
]
PEERS: Mapping[str, Peer] = {peer.name: peer for peer in _PEERS}


def ours(case: Case) -> Side:
    """Ours, in this interpreter; training is tried with and without remat."""
    program = Program("benchmarks.peers.ours", checkout=True)
    training = isinstance(case, Training | Contrastive)
    return Side("ours", program, (Variant.PLAIN, Variant.REMAT) if training else (Variant.PLAIN,))


def prepared(peer: Peer) -> Path:
    """The interpreter of the environment that `benchmarks.environments` makes for a peer."""
    return ENVIRONMENTS / peer.name / "bin" / "python"


def python_of(peer: Peer, given: Mapping[str, str]) -> str:
    """The interpreter to run a peer with: the one given by name, the prepared one, or this one."""
    if peer.name in given:
        return given[peer.name]
    return str(prepared(peer)) if prepared(peer).exists() else sys.executable
