"""What a peer's file offers, and what its `build` gives back. Standard library only, for Python 3.10 on.

A file of this folder has three functions:

    load(threads: int) -> dict[str, str]           import the peer, set its threads; versions by package
    build(case: Case, variant: Variant) -> Built   the model with random weights and its inputs, nothing run yet
"""

import dataclasses
import enum
import typing


class Variant(enum.Enum):
    """How a side computes the same thing."""

    PLAIN = "as it comes"
    REMAT = "activations recomputed in the backward pass"
    COMPILED = "torch.compile"


class NoSuchModelError(Exception):
    """The peer has no such model, or cannot take these sizes; the message says which."""


@dataclasses.dataclass
class Built:
    """A side of a case, ready to be run.

    run: one whole call on numpy inputs; returns when the answers are computed.
    shapes: of what `run` returned, by name.
    parameters: how many numbers are trained.
    times: how many calls of `run` make up the case, where one is only a part of it.
    notes: what a reader of the figures has to know.
    """

    run: typing.Callable[[], typing.Any]
    shapes: typing.Callable[[typing.Any], typing.Dict[str, typing.List[int]]]  # noqa: UP006
    parameters: int
    times: int = 1
    notes: typing.Tuple[str, ...] = ()  # noqa: UP006
