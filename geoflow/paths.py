"""Paths from noise to data: what is learnt (the target), and how a state moves (chart, frame, base distribution).

A path is one object with the members below; a solver, a loss or a likelihood asks nothing else, so a method in R³ is a
sibling of the one here, not a branch in them.

===========================  ======================================================================
``noise(shape, generator)``  random starting points
``noise_log_prob(x)``        their log-density
``couple(x1, generator)``    noise to pair with data
``sample(x0, x1, t)``        the point at time t and the network's target, a `PathSample`
``velocity(network)``        the velocity field (x, t, cond) → v that a network defines
``project(x)``               nearest state
``move(x, u)``               the state reached from x by the displacement u
``pull_back(x, u, v)``       the displacement's velocity when the state move(x, u) has velocity v
``restrict(velocity)``       the same field, defined and tangent around the manifold, so that it can be differentiated
``frame(x)``                 orthonormal directions in which a state can move
===========================  ======================================================================
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from geoflow import sphere
from geoflow.checks import choose

ANTIPODE_MARGIN = 1e-3  # radians; closer to the antipode the direction of a geodesic is rounding noise


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


class RiemannianFlow:
    """Flow matching on S² (PLONK, section 3.3; Chen & Lipman, 2024).

    x₀ ~ U(S²), x_t = exp_{x₀}(t log_{x₀} x₁), and the target is the geodesic's velocity dx_t/dt: tangent at x_t, of length
    ∠(x₀, x₁) at every t.
    """

    name = "riemannian"

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

    def velocity(self, network):
        """The network's answer is the velocity."""
        return network

    def project(self, x: Tensor) -> Tensor:
        return sphere.project(x)

    def move(self, x: Tensor, u: Tensor) -> Tensor:
        return sphere.exp(x, u)

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


PATHS = {path.name: path for path in (RiemannianFlow,)}


def by_name(name: str):
    """The path of a method: `riemannian`.

    Raises:
        ValueError: unknown name.
    """
    return PATHS[choose("method", name, PATHS)]()
