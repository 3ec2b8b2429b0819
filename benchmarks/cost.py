"""Theoretical cost of every case, from our declaration of its model."""

from typing import NamedTuple

from benchmarks import counting, models
from benchmarks.cases import Canonical, Case, Contrastive, Forward, Training


class Cost(NamedTuple):
    """FLOPs of the matrix products, and bytes that have to move at least, of one run of a case."""

    flops: int
    bytes: int


def cost(case: Case, parameters: int, answered: int) -> Cost:
    """See `counting`. parameters: of our model. answered: numbers in our answers."""
    config = models.config(case)
    given = models.call(case)
    read = sum(array.nbytes for part in given for array in part.values())
    if isinstance(case, Training | Contrastive):
        return Cost(case.batch * counting.step_flops(config), counting.step_bytes(parameters, read))
    chunk = isinstance(case, Forward) and case.model is Canonical.KINETICS
    asked = {name: len(at) for name, at in given.queries.items()} if chunk else None
    flops = case.batch * counting.forward_flops(config, asked)
    return Cost(flops, counting.forward_bytes(parameters, read, counting.FLOAT * answered))
