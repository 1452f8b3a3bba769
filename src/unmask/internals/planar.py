"""Maps of the images: features as points of a plane."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

METHODS = ("PCA", "t-SNE")


def planar(features: np.ndarray, seed: int) -> dict[str, tuple[np.ndarray, float]]:
    """The images as points of a plane by `METHODS`: float32 [N, 2], and how far neighbourhoods can be trusted.

    Features [N, D]. Trustworthiness in [0, 1]: 1 = every image's five neighbours on the map are neighbours in truth.
    Venna & Kaski, Neighborhood Preservation in Nonlinear Projection Methods, ICANN 2001; van der Maaten & Hinton,
    Visualizing Data Using t-SNE, JMLR 2008. A map of random features shows groups, too: look at the labels.
    """
    import numpy as np
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE, trustworthiness
    from threadpoolctl import threadpool_limits

    whole = np.asarray(features, np.float64)
    perplexity = min(30.0, (len(whole) - 1) / 3)
    with threadpool_limits(1):  # sums depend on the number of threads
        made = {
            "PCA": PCA(2, svd_solver="full").fit_transform(whole),
            "t-SNE": TSNE(2, perplexity=perplexity, init="pca", random_state=seed % 2**32).fit_transform(whole),
        }
    neighbours = min(5, (len(whole) - 1) // 2)
    return {
        name: (points.astype(np.float32), float(trustworthiness(whole, points, n_neighbors=neighbours)))
        for name, points in made.items()
    }
