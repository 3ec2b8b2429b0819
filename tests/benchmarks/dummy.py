"""A peer of numpy alone, for the tests: a policy is one matrix product."""

import numpy as np

from benchmarks.cases import Policy
from benchmarks.peers.contract import Built, NoSuchModelError


def load(threads):
    return {"numpy": np.__version__}


def build(case, variant):
    if not isinstance(case, Policy):
        raise NoSuchModelError("a dummy has policies only")
    if case.steps > 100:
        raise MemoryError("a dummy has no memory for that")
    weights = np.ones((case.channels, case.actions), np.float32)
    tokens = np.ones((case.batch, case.steps, case.channels), np.float32)
    return Built(lambda: tokens @ weights, lambda answer: {"": list(answer.shape)}, weights.size, notes=("a dummy",))
