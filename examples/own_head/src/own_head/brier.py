"""The metric `brier`: the Brier score (1950)."""

import numpy as np


def brier(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean squared distance of the probabilities (n, c) from the label (n,) as probability 1."""
    return float(((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(1).mean())
