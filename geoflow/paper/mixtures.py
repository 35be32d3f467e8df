"""Mixtures of von Mises–Fisher distributions, fitted to points."""

import math

import torch
from torch import Tensor

from geoflow import sphere, vmf


def fit_mixture(
    x: Tensor,
    components: int,
    steps: int = 200,
    most: float = 1e5,
    generator: torch.Generator | None = None,
) -> vmf.Mixture:
    """Maximum-likelihood mixture by expectation–maximisation (Banerjee et al., 2005), float64.

    >>> mixture = fit_mixture(sphere.uniform(100), components=2, steps=10)
    >>> mixture.mean.shape
    torch.Size([1, 2, 3])

    Args:
        x: (n, 3) unit vectors.
        components: K.
        steps: of expectation and maximisation.
        most: largest κ allowed; for a component of one repeated point the likelihood has no bound.
        generator: chooses the first means among the points, each far from those before (k-means++).

    Returns:
        A mixture for B = 1.

    Raises:
        ValueError: fewer points than components, or none.
    """
    if not 1 <= components <= len(x):
        expected = "expected at least one component and no more than points"
        raise ValueError(f"{components} components for {len(x)} points; {expected}")
    x = x.double()
    chosen = [int(torch.randint(len(x), (1,), generator=generator))]
    for _ in range(components - 1):
        nearest = (x[:, None] - x[chosen]).square().sum(-1).amin(1)
        weights = nearest if bool(nearest.sum() > 0) else torch.ones_like(nearest)
        chosen.append(int(torch.multinomial(weights, 1, generator=generator)))
    mixture = vmf.Mixture(
        x.new_full((1, components), -math.log(components)),
        x[chosen][None],
        x.new_full((1, components), min(components, most)),
    )
    for _ in range(steps):
        parts = mixture.log_weight + vmf.log_prob(
            x[:, None], mixture.mean, mixture.concentration
        )  # (n, K)
        share = parts.softmax(-1)
        total = share.sum(0).clamp(min=1e-12)
        resultant = (share.T @ x) / total[:, None]
        length = resultant.norm(dim=-1)
        mean = torch.where(length[:, None] > 1e-9, sphere.unit(resultant), mixture.mean[0])
        mixture = vmf.Mixture(
            (total / len(x)).log()[None], mean[None], _concentration(length).clamp(max=most)[None]
        )
    return mixture


def _concentration(length: Tensor) -> Tensor:
    """κ of mean resultant length R: coth κ − 1/κ = R.

    Newton's method from Banerjee's approximation R (3 − R²) / (1 − R²).
    """
    length = length.clamp(1e-6, 1 - 1e-12)
    kappa = length * (3 - length**2) / (1 - length**2)
    for _ in range(5):
        error = torch.where(kappa < 1e-2, kappa / 3, 1 / kappa.tanh() - 1 / kappa) - length
        slope = torch.where(kappa < 1e-2, 1 / 3, kappa**-2 - kappa.clamp(max=300).sinh() ** -2)
        kappa = (kappa - error / slope).clamp(min=1e-6)
    return kappa
