"""Classification from codes by simple readouts: nearest neighbours and linear dichotomies."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from ._arrays import Array, matrix


def _labelled(x: Array, labels: Array, name: str) -> tuple[np.ndarray, np.ndarray]:
    x, labels = matrix(x, name), np.asarray(labels)
    if labels.shape != (len(x),):
        raise ValueError(f"{name} has {len(x)} rows but labels of shape {labels.shape}; give one label per row")
    return x, labels


def knn_accuracy(
    train: Array,
    train_labels: Array,
    test: Array,
    test_labels: Array,
    *,
    n_labels: Sequence[int] = (200, 1000, 5000),
    k: int = 5,
    rng: np.random.Generator,
) -> dict[int, float]:
    """Accuracy of k-nearest-neighbour classification from few labels, a measure of the sample efficiency of a code.

    Fraction of test stimuli with the right class, in [0, 1], higher is better, one value per number of labels.

    Parameters
    ----------
    train, test
        (n, K) and (m, K) features: posterior rates, log-rates or counts. Distances are Euclidean.
    train_labels, test_labels
        (n,) and (m,) classes.
    n_labels
        Numbers of training stimuli to use, drawn without replacement by `rng`.
    k
        Neighbours that vote.

    Raises
    ------
    ValueError
        If more labels are asked for than there are, or fewer than k.

    References
    ----------
    Vafaii, Galor & Yates, arXiv:2405.14473 (k = 5; 200, 1000 and 5000 labels).

    Examples
    --------
    >>> x = [[0.0], [0.1], [5.0], [5.1]]
    >>> knn_accuracy(x, [0, 0, 1, 1], [[0.2], [4.0]], [0, 1], n_labels=[4], k=1, rng=np.random.default_rng(0))
    {4: 1.0}
    """
    from sklearn.neighbors import KNeighborsClassifier

    x, labels = _labelled(train, train_labels, "train")
    x_test, labels_test = _labelled(test, test_labels, "test")
    if not k <= min(n_labels) <= max(n_labels) <= len(x):
        raise ValueError(f"n_labels={tuple(n_labels)} must lie between k={k} and the {len(x)} training rows")
    accuracies = {}
    for n in n_labels:
        chosen = rng.choice(len(x), n, replace=False)
        classifier = KNeighborsClassifier(k).fit(x[chosen], labels[chosen])
        accuracies[int(n)] = float(classifier.score(x_test, labels_test))
    return accuracies


def shattering_dimensionality(
    train: Array, train_labels: Array, test: Array, test_labels: Array, *, regularisation: float = 1.0
) -> float:
    """Mean test accuracy of logistic regression over all balanced dichotomies of the classes.

    For ten digits there are C(10, 5) = 252; exchanging the two halves does not change the accuracy, so half of
    them are fitted. In [0, 1], chance is .5; higher means that more dichotomies are linearly separable.

    Parameters
    ----------
    train, test
        (n, K) and (m, K) features; standardised with the training mean and deviation before the fit.
    train_labels, test_labels
        (n,) and (m,) classes; an even number of them.
    regularisation
        Inverse strength of the L2 penalty.

    Raises
    ------
    ValueError
        For an odd number of classes, or test classes that are not in the training set.

    References
    ----------
    Bernardi et al., Cell 183 (2020); as used by Vafaii, Galor & Yates, arXiv:2405.14473.

    Examples
    --------
    >>> x = [[0.0], [0.1], [5.0], [5.1]]
    >>> shattering_dimensionality(x, [0, 0, 1, 1], x, [0, 0, 1, 1])
    1.0
    """
    from sklearn.linear_model import LogisticRegression

    x, labels = _labelled(train, train_labels, "train")
    x_test, labels_test = _labelled(test, test_labels, "test")
    classes = np.unique(labels)
    if len(classes) < 2 or len(classes) % 2 or not np.isin(labels_test, classes).all():
        raise ValueError(
            f"balanced dichotomies need an even number of classes that covers the test labels; trained on "
            f"{classes.tolist()}, tested on {np.unique(labels_test).tolist()}"
        )
    mean, deviation = x.mean(0), x.std(0)
    deviation[deviation == 0] = 1.0
    x, x_test = (x - mean) / deviation, (x_test - mean) / deviation
    accuracies = []
    # Each unordered split once, given by the half with the first class.
    for others in combinations(classes[1:], len(classes) // 2 - 1):
        half = [classes[0], *others]
        probe = LogisticRegression(C=regularisation, max_iter=1000).fit(x, np.isin(labels, half))
        accuracies.append(probe.score(x_test, np.isin(labels_test, half)))
    return float(np.mean(accuracies))
