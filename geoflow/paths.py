"""Paths from noise to data: what is learnt (the target), and how a state moves (chart, frame, base distribution).

A path is one object with the members below; a solver, a loss or a likelihood asks nothing else, so the methods on S² and in R³
are siblings here, not branches there.

===========================  ======================================================================
``tangent``                  whether states live on the sphere, and the network's answer is tangent to it
``noise(shape, generator)``  random starting points
``noise_log_prob(x)``        their log-density
``couple(x1, generator)``    noise to pair with data
``sample(x0, x1, t)``        the point at time t and the network's target, a `PathSample`
``velocity(network)``        the velocity field (x, t, cond) → v that a network defines
``clock(t)``, ``time(s)``    the variable s in which the velocity is dx/ds and regular, and its inverse
``project(x)``               nearest state
``move(x, u)``               the state reached from x by the displacement u
``pull_back(x, u, v)``       the displacement's velocity when the state move(x, u) has velocity v
``restrict(velocity)``       the same field, defined and tangent around the manifold, so that it can be differentiated
``frame(x)``                 orthonormal directions in which a state can move
===========================  ======================================================================
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from geoflow import sphere
from geoflow.runtime import choose

ANTIPODE_MARGIN = (
    1e-3  # radians; closer to the antipode the direction of a geodesic is rounding noise
)


@dataclass(frozen=True)
class PathSample:
    """A point on a path.

    Attributes:
        x_t: (..., 3) the point at time t.
        t: (...) its time.
        target: (..., 3) what the network should answer there.
        x0, x1: (..., 3) the ends: noise and data.
    """

    x_t: Tensor
    t: Tensor
    target: Tensor
    x0: Tensor
    x1: Tensor


class _Flow:
    """What flows share: the network's answer is the velocity dx/dt, and t itself is the clock."""

    def velocity(self, network):
        return network

    def clock(self, t):
        return t

    def time(self, s):
        return s


class RiemannianFlow(_Flow):
    """Flow matching on S² (PLONK, section 3.3; Chen & Lipman, 2024).

    x₀ ~ U(S²), x_t = exp_{x₀}(t log_{x₀} x₁), and the target is the geodesic's velocity dx_t/dt: tangent at x_t, of length
    ∠(x₀, x₁) at every t.
    """

    name = "riemannian"
    tangent = True

    def noise(self, shape, generator: torch.Generator | None = None) -> Tensor:
        """Uniform points, (*shape, 3)."""
        return sphere.uniform(shape, generator)

    def noise_log_prob(self, x: Tensor) -> Tensor:
        """−log 4π everywhere: (..., 3) → (...) nats."""
        return torch.full_like(x[..., 0], sphere.LOG_UNIFORM)

    def couple(self, x1: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Noise for each data point, drawn again where it falls within 10⁻³ rad of the antipode: (..., 3)."""
        x0 = self.noise(x1.shape[:-1], generator).to(x1)
        while True:
            bad = sphere.distance(x0, -x1) < ANTIPODE_MARGIN
            count = int(bad.sum())
            if not count:
                return x0
            x0[bad] = self.noise(count, generator).to(x1)

    def sample(self, x0: Tensor, x1: Tensor, t: Tensor) -> PathSample:
        """Point and target velocity at time t on the geodesic from x0 to x1. x0, x1: (..., 3); t: (...)."""
        x_t = sphere.geodesic(x0, x1, t)
        return PathSample(x_t, t, sphere.geodesic_velocity(x0, x1, t), x0, x1)

    def project(self, x: Tensor) -> Tensor:
        return sphere.project(x)

    def move(self, x: Tensor, u: Tensor) -> Tensor:
        return sphere.exp(x, u)

    def displacement(self, x: Tensor, y: Tensor) -> Tensor:
        """The inverse of `move`: u with move(x, u) = y."""
        return sphere.log(x, y)

    def pull_back(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return sphere.exp_differential_inverse(x, u, v)

    def restrict(self, velocity):
        """y ↦ P_n v(n), n = y/|y|: normalising inside is what makes the derivative of the projection right."""

        def field(y: Tensor, t, cond: Tensor | None) -> Tensor:
            n = sphere.unit(y)
            return sphere.to_tangent(n, velocity(n, t, cond))

        return field

    def frame(self, x: Tensor) -> Tensor:
        """Two orthonormal tangent vectors at x: (2, ..., 3)."""
        return sphere.tangent_basis(x)


class EuclideanFlow(_Flow):
    """Flow matching in R³ (PLONK, section 3.2; Lipman et al., 2023): x₀ ~ N(0, I), x_t = (1 − t) x₀ + t x₁, target x₁ − x₀.

    States end near the sphere, not on it. A sample is the direction of its last state, and the density of a direction u is the
    marginal over the ray, p(u) = ∫ p(r u) r² dr.
    """

    name = "flow"
    tangent = False

    def noise(self, shape, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal points, (*shape, 3)."""
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        return torch.randn(
            *shape, 3, generator=generator, device=generator.device if generator else None
        )

    def noise_log_prob(self, x: Tensor) -> Tensor:
        """−|x|²/2 − (3/2) log 2π: (..., 3) → (...) nats with respect to volume."""
        return -x.square().sum(-1) / 2 - 1.5 * math.log(2 * math.pi)

    def couple(self, x1: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Noise for each data point: (..., 3)."""
        return self.noise(x1.shape[:-1], generator).to(x1)

    def sample(self, x0: Tensor, x1: Tensor, t: Tensor) -> PathSample:
        """Point and target at time t on the line from x0 to x1. x0, x1: (..., 3); t: (...)."""
        s = t[..., None]
        return PathSample((1 - s) * x0 + s * x1, t, x1 - x0, x0, x1)

    def project(self, x: Tensor) -> Tensor:
        """Every finite vector is a state."""
        if not bool(x.isfinite().all()):
            raise ValueError("a state is NaN or infinite; expected finite vectors")
        return x

    def move(self, x: Tensor, u: Tensor) -> Tensor:
        return x + u

    def displacement(self, x: Tensor, y: Tensor) -> Tensor:
        return y - x

    def pull_back(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return v

    def restrict(self, velocity):
        return velocity

    def frame(self, x: Tensor) -> Tensor:
        """The three axes: (3, ..., 3)."""
        axes = torch.eye(3, dtype=x.dtype, device=x.device)
        return axes.reshape(3, *[1] * (x.ndim - 1), 3).expand(3, *x.shape)


class Diffusion(EuclideanFlow):
    """Diffusion in R³ with noise prediction (PLONK, section 3.1; Ho et al., 2020; Song et al., 2021).

    x_t = √t x₁ + √(1−t) x₀, x₀ ~ N(0, I), target x₀; t is the signal level γ = 1 − κ of the paper. With the angle
    φ = arcsin √t this is a rotation, x = sin φ x₁ + cos φ x₀, and the probability-flow ODE is

        dx/dφ = cos φ x̂₁ − sin φ x̂₀ = (cos φ x − x̂₀) / sin φ,

    regular at the data, where dx/dt has a factor 1/√(1−t) (missing in the paper's official code). At pure noise
    it is 0/0 for any network: solutions start at t = 10⁻³, where the signal is 3 % of the noise.
    """

    name = "diffusion"
    START = 1e-3

    def sample(self, x0: Tensor, x1: Tensor, t: Tensor) -> PathSample:
        """Point and target noise at time t. x0, x1: (..., 3); t: (...)."""
        s = t[..., None]
        return PathSample(s.sqrt() * x1 + (1 - s).sqrt() * x0, t, x0, x0, x1)

    def velocity(self, network):
        return DiffusionVelocity(network)

    def clock(self, t):
        """φ = arcsin √t, from t = 10⁻³ on."""
        return torch.as_tensor(t).clamp(self.START, 1).sqrt().asin()

    def time(self, s):
        return torch.as_tensor(s).sin().square()


@dataclass(frozen=True)
class DiffusionVelocity:
    """dx/dφ of the probability-flow ODE, from a network that predicts the noise."""

    network: Any

    @property
    def tangent(self) -> bool | None:
        return getattr(self.network, "tangent", None)

    def __call__(self, x: Tensor, t, cond: Tensor | None = None) -> Tensor:
        sin, cos = self._angle(x, t)
        return (cos * x - self.network(x, t, cond)) / sin

    def jvp(self, x: Tensor, t, cond: Tensor | None, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity and its derivatives along directions (k, B, N, 3), as `VelocityTransformer.jvp`."""
        noise, rates = self.network.jvp(x, t, cond, directions)
        sin, cos = self._angle(x, t)
        return (cos * x - noise) / sin, (cos * directions - rates) / sin

    def _angle(self, x: Tensor, t) -> tuple[Tensor, Tensor]:
        t = torch.as_tensor(t, dtype=x.dtype, device=x.device).clamp(Diffusion.START, 1)
        t = t.reshape(t.shape + (1,) * (x.ndim - t.ndim))
        return t.sqrt(), (1 - t).sqrt()


PATHS = {path.name: path for path in (RiemannianFlow, EuclideanFlow, Diffusion)}


def by_name(name: str):
    """The path of a method: `riemannian`, `flow` or `diffusion`.

    Raises:
        ValueError: unknown name.
    """
    return PATHS[choose("method", name, PATHS)]()
