"""What a layer knows of the label: classifiers on the mean of its patch tokens.

Fitted to features of training images, judged on test images. The mean of the patch tokens is taken of every
architecture and pooling: before fine-tuning a class token has learned nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def nearest_neighbours(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, neighbours: int
) -> np.ndarray:
    """Whether k-NN by cosine distance gives the label, float64 [N] of 0 and 1.

    Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, CVPR 2018 (without weights).
    """
    from sklearn.neighbors import KNeighborsClassifier

    classifier = KNeighborsClassifier(min(neighbours, len(train)), metric="cosine", algorithm="brute")
    return _correct(classifier.fit(train, train_labels).predict(test), test_labels)


def linear(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> np.ndarray:
    """Whether logistic regression on standardised features gives the label, float64 [N] of 0 and 1.

    Alain & Bengio, Understanding Intermediate Layers Using Linear Classifier Probes, ICLR 2017 (workshop).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return _correct(classifier.fit(train, train_labels).predict(test), test_labels)


def _correct(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return (predicted == labels).astype("float64")
