"""Simple methods that several recipes stand beside."""

import lzma
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from perceiver.typing import Float


def bag_of_words(splits: Mapping[str, Sequence[Any]], label: Callable[[Any], int]) -> dict[str, float]:
    """Test accuracy of two linear methods on words and pairs of words by TF-IDF.

    They learn from the training and the validation split. An item has a `text`; label: its class.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    known, test = [*splits["train"], *splits["validation"]], splits["test"]
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
    rows, unseen = words.fit_transform([item.text for item in known]), words.transform([item.text for item in test])
    labels, truth = [label(item) for item in known], [label(item) for item in test]
    methods = {"logistic_regression": LogisticRegression(max_iter=1000), "linear_svm": LinearSVC()}
    return {name: float(method.fit(rows, labels).score(unseen, truth)) for name, method in methods.items()}


class Runs(NamedTuple):
    """How often each run of bytes is in a text; and, of the bytes that follow each, how many there are, and different
    ones.
    """

    runs: Mapping[bytes, int]
    followed: Mapping[bytes, int]
    kinds: Mapping[bytes, int]

    @classmethod
    def counted(cls, text: bytes, order: int) -> "Runs":
        """Runs of up to `order` bytes, and the byte that follows."""
        runs = Counter(text[start : start + size + 1] for size in range(order + 1) for start in range(len(text) - size))
        followed, kinds = Counter[bytes](), Counter[bytes]()
        for run, count in runs.items():
            followed[run[:-1]] += count
            kinds[run[:-1]] += 1
        return cls(runs, followed, kinds)

    def nats(self, text: bytes, order: int) -> Float[np.ndarray, "n"]:
        """Nats of each byte of a text from the up to `order` bytes in front of it, at most as many as were counted.

        Counts of longer runs are mixed with those of shorter ones, and these at last with 256 equal bytes (method C of
        Witten and Bell, IEEE Transactions on Information Theory 37, 1991).
        """
        return np.array([-math.log(self._share(text[max(0, at - order) : at + 1])) for at in range(len(text))])

    def _share(self, run: bytes) -> float:
        """Of the last byte behind the others."""
        share = 1 / 256
        for start in range(len(run) - 1, -1, -1):
            before = run[start:-1]
            kinds = self.kinds.get(before, 0)
            if not kinds:
                break
            share = (self.runs.get(run[start:], 0) + kinds * share) / (self.followed[before] + kinds)
        return share


def compressed_nats(known: bytes, text: bytes) -> float:
    """Nats per byte that xz needs to write a text behind a known one."""
    alone, both = (len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)) for content in (known, known + text))
    return (both - alone) * 8 * math.log(2) / len(text)


class Projections(NamedTuple):
    """Two linear maps into one space: what is subtracted, and the matrix, for each side."""

    left_mean: Float[np.ndarray, "p"]
    left: Float[np.ndarray, "p k"]
    right_mean: Float[np.ndarray, "q"]
    right: Float[np.ndarray, "q k"]

    def __call__(
        self, left: Float[np.ndarray, "n p"], right: Float[np.ndarray, "m q"]
    ) -> tuple[Float[np.ndarray, "n k"], Float[np.ndarray, "m k"]]:
        """Rows of both sides to vectors of length 1."""
        return _unit((left - self.left_mean) @ self.left), _unit((right - self.right_mean) @ self.right)


def canonical_correlation(
    left: Float[np.ndarray, "n p"], right: Float[np.ndarray, "n q"], ridge: tuple[float, float], channels: int
) -> Projections:
    """Linear canonical correlation analysis (Hotelling 1936), regularised, directions weighted by their correlation.

    ridge: added to the variances of each side, in units of the mean variance of its principal directions.
    """
    means = left.mean(axis=0), right.mean(axis=0)
    whitening = []
    for rows, mean, own in zip((left, right), means, ridge, strict=True):
        _, sizes, directions = np.linalg.svd(rows - mean, full_matrices=False)
        variances = sizes**2
        whitening.append(directions.T / np.sqrt(variances + own * variances.mean()))
    white = [(rows - mean) @ matrix for rows, mean, matrix in zip((left, right), means, whitening, strict=True)]
    one, correlations, other = np.linalg.svd(white[0].T @ white[1], full_matrices=False)
    weights = np.sqrt(correlations[:channels])
    return Projections(
        means[0],
        whitening[0] @ one[:, :channels] * weights,
        means[1],
        whitening[1] @ other[:channels].T * weights,
    )


def oriented_gradients(grey: Float[np.ndarray, "h w"], cell: int = 8, bins: int = 9) -> Float[np.ndarray, "f"]:
    """Histograms of gradient directions in cells, normalised in blocks of 2 x 2 (Dalal and Triggs, CVPR 2005).

    grey: in [0, 1], of whole cells.
    """
    down, across = np.gradient(grey)
    place = np.arctan2(down, across) % np.pi / np.pi * bins
    lower, share = np.floor(place).astype(int), place - np.floor(place)
    votes = np.zeros((*grey.shape, bins))
    rows, columns = np.indices(grey.shape)
    for number, part in ((lower, 1 - share), (lower + 1, share)):
        np.add.at(votes, (rows, columns, number % bins), np.hypot(down, across) * part)
    cells = votes.reshape(grey.shape[0] // cell, cell, grey.shape[1] // cell, cell, bins).sum(axis=(1, 3))
    blocks = np.concatenate([cells[:-1, :-1], cells[1:, :-1], cells[:-1, 1:], cells[1:, 1:]], axis=-1)
    return (blocks / np.sqrt(np.square(blocks).sum(axis=-1, keepdims=True) + 1e-2)).ravel()


def _unit(rows: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
