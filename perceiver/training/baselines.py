"""Simple methods from scikit-learn that several recipes stand beside."""

from collections.abc import Sequence


def bag_of_words(train: Sequence[tuple[str, int]], test: Sequence[tuple[str, int]]) -> dict[str, float]:
    """Test accuracy of TF-IDF of words and pairs of words, by two linear methods. train, test: texts and classes."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
    known, unseen = words.fit_transform([text for text, _ in train]), words.transform([text for text, _ in test])
    labels, truth = [label for _, label in train], [label for _, label in test]
    methods = {"logistic_regression": LogisticRegression(max_iter=1000), "linear_svm": LinearSVC()}
    return {name: float(method.fit(known, labels).score(unseen, truth)) for name, method in methods.items()}
