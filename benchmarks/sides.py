"""Who is compared: peers by name, and how ours and each of them is started."""

import dataclasses
from collections.abc import Mapping

from benchmarks.cases import Case, Contrastive, Training
from benchmarks.peers.contract import Variant
from benchmarks.process import Program


@dataclasses.dataclass(frozen=True)
class Side:
    """One side of a comparison. name: as rows call it. variants: ways to compute the same; the fastest counts."""

    name: str
    program: Program
    variants: tuple[Variant, ...] = (Variant.PLAIN,)


@dataclasses.dataclass(frozen=True)
class Peer:
    """A package that we compare ourselves with.

    module: its file in `benchmarks.peers`. install: what to tell pip. needs: what else it takes, for people.
    """

    name: str
    module: str
    install: tuple[str, ...]
    variant: Variant = Variant.PLAIN
    needs: str = ""

    def side(self, python: str, paths: tuple[str, ...] = ()) -> Side:
        """The peer in an environment."""
        return Side(self.name, Program(self.module, python, paths), (self.variant,))


TORCH = ("torch==2.13.0", "transformers>=5,<6")
_PEERS = [
    Peer("transformers", "benchmarks.peers.hugging_face", TORCH),
    Peer("transformers-compiled", "benchmarks.peers.hugging_face", TORCH, Variant.COMPILED, "a C++ compiler"),
]
PEERS: Mapping[str, Peer] = {peer.name: peer for peer in _PEERS}


def ours(case: Case) -> Side:
    """Ours, in this interpreter; training is tried with and without remat."""
    program = Program("benchmarks.peers.ours", checkout_first=True)
    training = isinstance(case, Training | Contrastive)
    return Side("ours", program, (Variant.PLAIN, Variant.REMAT) if training else (Variant.PLAIN,))
