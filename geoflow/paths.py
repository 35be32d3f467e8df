"""Paths from noise to data: what is learnt (the target), and the manifold on which states move.

A path is one object with a `name` and the members below. Solvers, losses, likelihoods use no more,
so the methods on S² and in R³ are siblings here, not branches there.

==========================================  =====================================================
``tangent``                                 whether states live on S² and velocities are tangent
``noise(shape, generator)``                 random starting points
``noise_log_prob(x)``                       their log-density
``noise_like(x1, generator)``               noise to pair with data x1
``sample(x0, x1, t)``                       point at time t and the network's target: `PathSample`
``expected_target(x, t, mean, width)``      the target's mean at x if x₁ ~ N(mean, width² I)
``velocity(network)``                       the velocity field (x, t, cond) → v of a network
``clock(t)``, ``time(s)``                   the variable s in which the velocity is dx/ds and
                                            regular, and its inverse
``project(x)``                              nearest state
``exp(x, u)``, ``log(x, y)``                the state reached from x by u, and its inverse
``exp_differential_inverse(x, u, v)``       velocity of u if the state exp(x, u) moves with v
``frame(x)``                                orthonormal directions in which a state can move
==========================================  =====================================================
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from geoflow import sphere
from geoflow.runtime import choose

ANTIPODE_MARGIN = 1e-3  # radians; closer to the antipode a geodesic's direction is rounding noise


@dataclass(frozen=True)
class PathSample:
    """A point on a path."""

    x_t: Tensor  # (..., 3) the point at time t
    t: Tensor  # (...) its time
    target: Tensor  # (..., 3) what the network should answer there
    x0: Tensor  # (..., 3) noise, where the path starts
    x1: Tensor  # (..., 3) data, where it ends


class _Flow:
    """What flows share: the network answers with the velocity dx/dt, and t is the clock."""

    def velocity(self, network):
        return network

    def clock(self, t):
        return t

    def time(self, s):
        return s


class RiemannianFlow(_Flow):
    """Flow matching on S² (PLONK, section 3.3; Chen & Lipman, 2024).

    x₀ ~ U(S²), x_t = exp_{x₀}(t log_{x₀} x₁). The target is the velocity dx_t/dt of the geodesic,
    tangent at x_t and of length ∠(x₀, x₁) at every t.

    >>> path = RiemannianFlow()
    >>> x1 = sphere.from_latlon(torch.tensor([[48.9, 2.4], [35.7, 139.7]]))
    >>> at = path.sample(path.noise_like(x1), x1, torch.tensor([0.2, 0.9]))
    >>> at.x_t.shape, at.target.shape
    (torch.Size([2, 3]), torch.Size([2, 3]))
    """

    name = "riemannian"
    tangent = True
    project = staticmethod(sphere.project)
    exp = staticmethod(sphere.exp)
    log = staticmethod(sphere.log_unchecked)
    exp_differential_inverse = staticmethod(sphere.exp_differential_inverse)
    frame = staticmethod(sphere.tangent_basis)

    def noise(self, shape, generator: torch.Generator | None = None) -> Tensor:
        """Uniform points, (*shape, 3)."""
        return sphere.uniform(shape, generator)

    def noise_log_prob(self, x: Tensor) -> Tensor:
        """−log 4π everywhere: (..., 3) → (...) nats."""
        return torch.full_like(x[..., 0], sphere.LOG_UNIFORM)

    def noise_like(self, x1: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Noise for each data point: (..., 3).

        A draw within 10⁻³ rad of the antipode, one in 4 million, is replaced by its own antipode,
        since a geodesic to the antipode has no direction.
        """
        x0 = self.noise(x1.shape[:-1], generator).to(x1)
        antipodal = sphere.distance(x0, -x1) < ANTIPODE_MARGIN
        return torch.where(antipodal[..., None], -x0, x0)

    def sample(self, x0: Tensor, x1: Tensor, t: Tensor) -> PathSample:
        """Point and velocity at time t on the geodesic. x0, x1: (..., 3); t: (...)."""
        v = sphere.log_unchecked(x0, x1)
        x_t, target = sphere.exp(x0, t[..., None] * v), sphere.velocity_along(x0, v, t)
        return PathSample(x_t, t, target, x0, x1)

    def expected_target(self, x: Tensor, t: Tensor, mean: Tensor, width: Tensor) -> Tensor:
        """mean · (1 − t) / (width² + (1 − t)²), up to its component along x.

        The formula holds for distributions near x that are narrow beside 1 − t. For wider ones the
        mean is up to 1.47 times as long: uniform noise has variance (π² − 4)/4, not 1, per axis.
        """
        return mean * (1 - t) / (width.square() + (1 - t).square())


class EuclideanFlow(_Flow):
    """Flow matching in R³ (PLONK, section 3.2; Lipman et al., 2023).

    x₀ ~ N(0, I), x_t = (1 − t) x₀ + t x₁, target x₁ − x₀. States end near the sphere, not on it. A
    sample is the direction of its last state, and the density of a direction u is the marginal over
    the ray, p(u) = ∫ p(r u) r² dr.

    >>> at = EuclideanFlow().sample(torch.zeros(1, 3), torch.ones(1, 3), torch.tensor([0.25]))
    >>> at.x_t, at.target
    (tensor([[0.2500, 0.2500, 0.2500]]), tensor([[1., 1., 1.]]))
    """

    name = "flow"
    tangent = False

    def noise(self, shape, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal points, (*shape, 3)."""
        return sphere.random_vectors(shape, generator)

    def noise_log_prob(self, x: Tensor) -> Tensor:
        """−|x|²/2 − (3/2) log 2π: (..., 3) → (...) nats with respect to volume."""
        return -x.square().sum(-1) / 2 - 1.5 * math.log(2 * math.pi)

    def noise_like(self, x1: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Noise for each data point: (..., 3)."""
        return self.noise(x1.shape[:-1], generator).to(x1)

    def sample(self, x0: Tensor, x1: Tensor, t: Tensor) -> PathSample:
        """Point and target at time t on the line from x0 to x1. x0, x1: (..., 3); t: (...)."""
        s = t[..., None]
        return PathSample((1 - s) * x0 + s * x1, t, x1 - x0, x0, x1)

    def expected_target(self, x: Tensor, t: Tensor, mean: Tensor, width: Tensor) -> Tensor:
        """mean + (t width² − (1 − t)) / (t² width² + (1 − t)²) · (x − t mean)."""
        variance = t * width.square()
        slope = (variance - (1 - t)) / (t * variance + (1 - t).square())
        return mean + slope * (x - t * mean)

    def project(self, x: Tensor) -> Tensor:
        """Every finite vector is a state."""
        if not bool(x.isfinite().all()):
            raise ValueError("a state is NaN or infinite; expected finite vectors")
        return x

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        return x + u

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return y - x

    def exp_differential_inverse(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return v

    def frame(self, x: Tensor) -> Tensor:
        """The three axes: (3, ..., 3)."""
        axes = torch.eye(3, dtype=x.dtype, device=x.device)
        return axes.reshape(3, *[1] * (x.ndim - 1), 3).expand(3, *x.shape)


class Diffusion(EuclideanFlow):
    """Diffusion in R³ with noise prediction (PLONK, 3.1; Ho et al., 2020; Song et al., 2021).

    x_t = √t x₁ + √(1−t) x₀, x₀ ~ N(0, I), target x₀; t is the signal level γ = 1 − κ of the paper.
    With the angle φ = arcsin √t this is a rotation, x = sin φ x₁ + cos φ x₀, and the
    probability-flow ODE is

        dx/dφ = cos φ x̂₁ − sin φ x̂₀ = (cos φ x − x̂₀) / sin φ,

    regular at the data, where dx/dt has a factor 1/√(1−t). At pure noise it is 0/0 if x̂₀ is exact,
    else infinite, so solutions start at t = 10⁻³, where the signal is 3 % of the noise.

    >>> at = Diffusion().sample(torch.zeros(1, 3), torch.ones(1, 3), torch.tensor([0.25]))
    >>> at.x_t
    tensor([[0.5000, 0.5000, 0.5000]])
    """

    name = "diffusion"
    START = 1e-3

    def sample(self, x0: Tensor, x1: Tensor, t: Tensor) -> PathSample:
        """Point and target noise at time t. x0, x1: (..., 3); t: (...)."""
        s = t[..., None]
        return PathSample(s.sqrt() * x1 + (1 - s).sqrt() * x0, t, x0, x0, x1)

    def expected_target(self, x: Tensor, t: Tensor, mean: Tensor, width: Tensor) -> Tensor:
        """√(1 − t) / (t width² + 1 − t) · (x − √t mean)."""
        return (1 - t).sqrt() / (t * width.square() + 1 - t) * (x - t.sqrt() * mean)

    def velocity(self, network):
        return DiffusionVelocity(network)

    def clock(self, t):
        """φ = arcsin √t, from t = 10⁻³ on."""
        return torch.as_tensor(t).clamp(self.START, 1).sqrt().asin()

    def time(self, s):
        return torch.as_tensor(s).sin().square()


@dataclass(frozen=True)
class DiffusionVelocity:
    """dx/dφ of the probability-flow ODE, for a network that predicts the noise."""

    network: Any

    def __call__(self, x: Tensor, t, cond: Tensor | None = None) -> Tensor:
        return self.combine(x, t, self.network(x, t, cond))

    def combine(self, x: Tensor, t, noise: Tensor) -> Tensor:
        """(cos φ x − x̂₀) / sin φ: linear in (x, x̂₀), so it also maps their derivatives."""
        t = torch.as_tensor(t, dtype=x.dtype, device=x.device).clamp(Diffusion.START, 1)
        t = t.reshape(t.shape + (1,) * (3 - t.ndim))  # (B, N, 1)
        return ((1 - t).sqrt() * x - noise) / t.sqrt()


PATHS = {path.name: path for path in (RiemannianFlow, EuclideanFlow, Diffusion)}


def by_name(name: str):
    """The path of a method of that name: `riemannian`, `flow` or `diffusion`.

    >>> by_name("flow").name
    'flow'
    """
    return PATHS[choose("method", name, PATHS)]()
