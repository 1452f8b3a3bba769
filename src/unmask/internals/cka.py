"""How alike two layers order the same images: linear CKA of Gram matrices, in numpy alone.

CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with K = X X' of a layer's features, an image's features being all its
patch tokens in a row (Kornblith et al., Similarity of Neural Network Representations Revisited, ICML 2019; Raghu et
al., Do Vision Transformers See Like CNNs?, NeurIPS 2021). HSIC is the unbiased estimate of Song et al. (JMLR 2012), as
in Nguyen et al. (ICLR 2021): the plain one tends to 1 as features outnumber images. 1 = the same up to rotation and
scale, 0 = nothing in common; by chance slightly below 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

LEAST = 5  # images: the estimate without one of them needs four


def influence(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Influence values of the CKA of every layer of `a` [A, n, n] with every layer of `b` [B, n, n]: [A, B, n].

    Gram matrices of the same n >= 5 images. The mean over n is the CKA; what an image adds is n - 1 times what the
    estimate without it lacks. NaN where the features of a layer do not vary.
    """
    if a.shape[-1] < LEAST:
        raise ValueError(f"CKA needs {LEAST} images, there are {a.shape[-1]}")
    a, b = _without_diagonal(a), _without_diagonal(b)
    whole, without = (_ratio(part(a, b), part(a), part(b)) for part in (_hsic, _hsic_without))
    return whole[..., None] + (a.shape[-1] - 1) * (without.mean(-1, keepdims=True) - without)


def _ratio(cross: np.ndarray, own_a: np.ndarray, own_b: np.ndarray) -> np.ndarray:
    import numpy as np

    scale = own_a[:, None] * own_b[None]
    known = scale > 0
    return np.where(known, cross / np.sqrt(np.where(known, scale, 1.0)), np.nan)


def _without_diagonal(grams: np.ndarray) -> np.ndarray:
    import numpy as np

    return grams.astype(np.float64) * (1 - np.eye(grams.shape[-1]))


def _parts(a: np.ndarray, b: np.ndarray | None) -> tuple[np.ndarray, ...]:
    """Sums per image of every pair of layers (or, without `b`, of each with itself)."""
    import numpy as np

    rows_a = a.sum(-1)
    if b is None:
        products, cross = np.einsum("aij,aij->ai", a, a), np.einsum("aij,aj->ai", a, rows_a)
        return rows_a, rows_a, products, 2 * cross
    rows_b = b.sum(-1)
    products = np.matmul(a.transpose(1, 0, 2), b.transpose(1, 2, 0)).transpose(1, 2, 0)  # [A, B, n]
    cross = np.einsum("aij,bj->abi", a, rows_b) + np.einsum("bij,aj->abi", b, rows_a)
    return rows_a[:, None], rows_b[None], products, cross


def _hsic(a: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    rows_a, rows_b, products, _ = _parts(a, b)
    return _estimate(a.shape[-1], products.sum(-1), rows_a.sum(-1) * rows_b.sum(-1), (rows_a * rows_b).sum(-1))


def _hsic_without(a: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """The estimates from all images but one, [..., n]."""
    rows_a, rows_b, products, cross = _parts(a, b)
    total = (rows_a.sum(-1, keepdims=True) - 2 * rows_a) * (rows_b.sum(-1, keepdims=True) - 2 * rows_b)
    rows = (rows_a * rows_b).sum(-1, keepdims=True) - rows_a * rows_b - cross + products
    return _estimate(a.shape[-1] - 1, products.sum(-1, keepdims=True) - 2 * products, total, rows)


def _estimate(n: int, trace: np.ndarray, total: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """HSIC of Song et al. (2012), eq. 5: trace(KL), 1'K1 1'L1 and 1'KL1 of matrices without diagonal."""
    return (trace + total / ((n - 1) * (n - 2)) - 2 * rows / (n - 2)) / (n * (n - 3))
