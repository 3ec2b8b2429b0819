"""Every kind of fault, a few times; `python -m tests.faults` makes them more often."""

import zlib

import numpy as np
import pytest

from tests.faults.rounds import FAULTS, UnavailableError

pytestmark = pytest.mark.slow
ROUNDS = 2


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_promised_is_kept(name, tmp_path):
    make, share = FAULTS[name]
    try:
        result = make(tmp_path, max(round(ROUNDS * share), 1), np.random.default_rng(zlib.crc32(name.encode())))
    except UnavailableError as reason:
        pytest.skip(str(reason))
    assert result.kept == result.rounds, "\n".join(result.failures)
