"""Simple methods from scikit-learn that several recipes stand beside."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any


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
