"""Precision, recall, density and coverage of a set of places against another, exact."""

import math
from itertools import chain

import numpy as np
from torch import Tensor

from geoflow import sphere

PAIRS_AT_A_TIME = 2**20


def prdc(real: Tensor, fake: Tensor, k: int = 3, chunks: int | None = None) -> dict[str, float]:
    """Precision, recall (Kynkäänniemi et al., 2019), density, coverage (Naeem et al., 2020).

    Around each point lies a closed ball that reaches to its k-th nearest neighbour in its own set,
    by great-circle distance.

    - precision: share of the fake points in at least one real ball
    - recall: share of the real points in at least one fake ball
    - density: mean number of real balls around a fake point, divided by k; it may exceed 1
    - coverage: share of the real balls with at least one fake point

    All four depend on the number of points: state it. Two sets of n draws of one density expect
    density 1 and coverage near 1 − 2^−k for large n. Balls are closed, so a point that occurs often
    is worth many balls: with rounded coordinates density is large. (The official code's balls are
    open, which differs where points coincide.) Memory is linear in the number of points.

    >>> x = sphere.uniform(100)
    >>> prdc(x, x)
    {'precision': 1.0, 'recall': 1.0, 'density': 1.33..., 'coverage': 1.0}

    Args:
        real, fake: (N, 3) and (M, 3) finite places, of more than `k` points each.
        chunks: average over the parts of `torch.chunk` of both (fewer if points run out), which
            must have equally many points; the official code takes 20.
    """
    if chunks is not None:
        if len(real) != len(fake) or chunks < 1:
            points = f"{len(real)} real and {len(fake)} fake points in {chunks} chunks"
            raise ValueError(f"{points}; expected equal numbers in at least 1")
        pairs = zip(real.chunk(chunks), fake.chunk(chunks), strict=True)
        parts = [prdc(a, b, k) for a, b in pairs]
        return {name: math.fsum(part[name] for part in parts) / len(parts) for name in parts[0]}
    x, many_x, radius_x = _balls(real, k, "real")
    y, many_y, radius_y = _balls(fake, k, "fake")
    fakes_inside, y_covered = _contained(x, radius_x, y, many_y)
    _, x_covered = _contained(y, radius_y, x, many_x)
    return {
        "precision": float(many_y[y_covered].sum() / len(fake)),
        "recall": float(many_x[x_covered].sum() / len(real)),
        "density": float((many_x * fakes_inside).sum() / (k * len(fake))),
        "coverage": float(many_x[fakes_inside > 0].sum() / len(real)),
    }


def _balls(points: Tensor, k: int, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct points (m, 3), how often each occurs (m,), chords to the k-th neighbour (m,)."""
    from scipy.spatial import KDTree

    if points.ndim != 2 or k < 1 or len(points) <= k:
        shape = tuple(points.shape)
        raise ValueError(f"{name} points {shape} with k = {k}; expected (N, 3), N > k ≥ 1")
    directions = sphere.project(points.detach().cpu().double()).numpy()
    x, many = np.unique(directions, axis=0, return_counts=True)
    chord, near = KDTree(x).query(x, k=list(range(1, min(k + 1, len(x)) + 1)))
    enough = many[near].cumsum(1) > k  # itself and k others
    return x, many, chord[np.arange(len(x)), enough.argmax(1)]


def _contained(centers, radius, points, weight) -> tuple[np.ndarray, np.ndarray]:
    """Weight of the points in each ball (m,), and which points lie in any ball (n,).

    On a surface a distinct point lies in about 6k balls at most, which bounds the pairs.
    """
    from scipy.spatial import KDTree

    tree = KDTree(points)
    radius = radius * (1 + 1e-12)  # closed, whatever the rounding
    number = tree.query_ball_point(centers, radius, return_length=True)
    inside, covered = np.zeros(len(centers)), np.zeros(len(points), dtype=bool)
    hit = np.flatnonzero(number)
    full = np.arange(PAIRS_AT_A_TIME, number.sum(), PAIRS_AT_A_TIME)
    for part in np.split(hit, number[hit].cumsum().searchsorted(full)):
        lists = tree.query_ball_point(centers[part], radius[part], return_sorted=False)
        found = np.fromiter(chain.from_iterable(lists), np.int64, number[part].sum())
        ball = np.repeat(np.arange(len(part)), number[part])
        inside[part] = np.bincount(ball, weight[found], len(part))
        covered[found] = True
    return inside, covered
