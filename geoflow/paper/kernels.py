"""Kernels of many widths and a uniform floor: a density that remembers where events were.

    p(x) = w₀ / 4π + Σⱼ wⱼ Σᵢ vMF(x; xᵢ, κⱼ) / n

The centres xᵢ are all training events; nothing else is learnt from them. The few weights w come
from other events, so they say how often an event repeats a known place to 100 m, to a kilometre, to
a hundred.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from geoflow import sphere

WIDTHS_KM = tuple(0.064 * 2**k for k in range(16))  # 1/√κ: 64 m to 2,100 km
ROUNDS = 500  # of the EM algorithm


@dataclass(frozen=True)
class KernelMixture:
    """The density of the module's formula."""

    centers: Tensor  # (n, 3) unit vectors, float64
    weights: Tensor  # (1 + widths,) of the floor and of each width, which add up to 1

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of (m, 3) unit vectors: (m,) nats."""
        return _weighted(log_parts(self.centers, x), self.weights).logsumexp(0)


def log_parts(centers: Tensor, x: Tensor) -> Tensor:
    """Log-densities of the floor and of the kernels of each width, for (m, 3): (1 + widths, m).

    log vMF(x; xᵢ, κ) = log κ/2π − log(1 − e^−2κ) − κ |x − xᵢ|²/2, which loses no digits nearby.
    """
    rows = []
    for part in x.double().split(256):
        squared = (part[:, None] - centers.double()).square().sum(-1)  # (m, n)
        found = [torch.full((len(part),), sphere.LOG_UNIFORM, dtype=torch.float64)]
        for width in WIDTHS_KM:
            kappa = (sphere.EARTH_RADIUS_KM / width) ** 2
            scale = math.log(kappa / (2 * math.pi * len(centers))) - math.log1p(
                -math.exp(-2 * kappa)
            )
            found.append(scale + (-kappa / 2 * squared).logsumexp(1))
        rows.append(torch.stack(found))
    return torch.cat(rows, 1)


def _weighted(parts: Tensor, weights: Tensor) -> Tensor:
    return parts + weights.clamp(min=1e-300).log()[:, None]


def fit_kernels(train: Tensor, validation: Tensor) -> KernelMixture:
    """Kernels on (n, 3) training points, weighted by the EM algorithm on others.

    >>> points = sphere.uniform(200, torch.Generator().manual_seed(0))
    >>> kernels = fit_kernels(points[:100], points[100:])
    >>> bool(kernels.weights[0] > 0.5)  # uniform points repeat nothing
    True
    """
    parts = log_parts(train, validation)
    weights = torch.full((len(parts),), 1 / len(parts), dtype=torch.float64)
    for _ in range(ROUNDS):
        weights = _weighted(parts, weights).softmax(0).mean(1)
    return KernelMixture(train.double(), weights)
