"""Von Mises–Fisher distributions on S² and their mixtures: densities and draws.

    p(x) = κ / (2π (1 − e^{−2κ})) · exp(κ (⟨μ, x⟩ − 1))

κ = 0 is the uniform distribution; for large κ it is a normal distribution on the tangent plane with
standard deviation 1/√κ (100 m: κ = 4 · 10⁹). All formulas hold in float32 over this range.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from geoflow import sphere
from geoflow.runtime import recording

MAX_LOG_CONCENTRATION = 24.0  # the largest that a network may predict: a standard deviation of 40 m


def log_prob(x: Tensor, mean: Tensor, concentration: Tensor) -> Tensor:
    """Log-density of vMF(μ, κ), nats.

    κ (⟨μ, x⟩ − 1) is computed as −κ |x − μ|²/2, since below 2 km the difference of an inner product
    from 1 is rounding noise.

    >>> north = torch.tensor([0.0, 0.0, 1.0])
    >>> log_prob(north, north, torch.tensor(0.0))  # κ = 0: uniform, −log 4π
    tensor(-2.5310)

    Args:
        x, mean: (..., 3) unit vectors, broadcast.
        concentration: (...) κ ≥ 0.

    Raises:
        ValueError: κ is negative, NaN or infinite.
    """
    if not recording(x) and not bool(((concentration >= 0) & concentration.isfinite()).all()):
        low, high = concentration.min().item(), concentration.max().item()
        raise ValueError(f"concentration {low} … {high}; expected finite numbers of at least 0")
    small = concentration < 1e-2
    safe = torch.where(small, 1.0, concentration)
    # log κ/(1 − e^{−2κ}), near 0 by its series
    log_ratio = torch.where(
        small,
        concentration - concentration.square() / 6 - math.log(2),
        safe.log() - (-torch.expm1(-2 * safe)).log(),
    )
    return log_ratio - math.log(2 * math.pi) - concentration * (x - mean).square().sum(-1) / 2


def sample(uniforms: Tensor, mean: Tensor, concentration: Tensor) -> Tensor:
    """Draws of vMF(μ, κ) by inverting its cumulative distribution: exact on S².

    1 − ⟨μ, x⟩ = −log(u + (1 − u) e^{−2κ}) / κ, and the azimuth is uniform.

    >>> north = torch.tensor([0.0, 0.0, 1.0])
    >>> sample(torch.rand(5, 2), north, torch.tensor(1e9))[:, 2].round()
    tensor([1., 1., 1., 1., 1.])

    Args:
        uniforms: (..., 2) numbers in [0, 1).
        mean: (..., 3).
        concentration: (...) κ ≥ 0.

    Returns:
        (..., 3) unit vectors.
    """
    u, azimuth = uniforms[..., 0], 2 * math.pi * uniforms[..., 1]
    safe = concentration.clamp(min=1e-6)  # uniform to 10⁻⁶
    height = (-torch.log1p((1 - u) * torch.expm1(-2 * safe)) / safe).clamp(0, 2)  # 1 − ⟨μ, x⟩
    east, north = sphere.tangent_basis(mean)
    side = (height * (2 - height)).sqrt()[..., None]
    return sphere.unit(
        (1 - height)[..., None] * mean
        + side * (azimuth.cos()[..., None] * east + azimuth.sin()[..., None] * north)
    )


@dataclass(frozen=True)
class Mixture:
    """Σ w_k vMF(μ_k, κ_k) for each of B images.

    Attributes:
        log_weight: (B, K) logarithms of the weights, which add up to one.
        mean: (B, K, 3).
        concentration: (B, K).

    >>> north = torch.tensor([[[0.0, 0.0, 1.0]]])
    >>> Mixture(torch.zeros(1, 1), north, torch.zeros(1, 1)).log_prob(north)  # κ = 0 is uniform
    tensor([[-2.5310]])
    """

    log_weight: Tensor
    mean: Tensor
    concentration: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """(B, N, 3) → (B, N) nats."""
        parts = log_prob(x[:, :, None], self.mean[:, None], self.concentration[:, None])
        return (self.log_weight[:, None] + parts).logsumexp(-1)

    def sample(self, uniforms: Tensor) -> Tensor:
        """One draw for each triple of numbers in [0, 1): (B, N, 3) → (B, N, 3).

        The first number chooses the component.
        """
        below = uniforms[..., :1] >= self.log_weight.exp().cumsum(-1)[:, None]  # (B, N, K)
        chosen = below.sum(-1).clamp(max=self.log_weight.shape[-1] - 1)  # (B, N)
        mean = self.mean.gather(1, chosen[..., None].expand(-1, -1, 3))
        return sample(uniforms[..., 1:], mean, self.concentration.gather(1, chosen))
