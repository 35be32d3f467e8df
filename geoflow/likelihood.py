"""Log-densities of flows by the change of variables.

Along dx/dt = v(x, t) the density of a flow obeys d log p/dt = −div v. Solving back from a place x
at t = 1 to the noise at t = 0 gives

    log p₁(x) = log p₀(x(0)) − ∫₀¹ div v(x(t), t) dt     (PLONK, proposition 1; Chen et al., 2018)

On S² the divergence is the Riemannian one, exact by two forward-mode derivatives. The trace of the
ambient Jacobian, which the official code takes, is no substitute: its "densities" do not integrate
to 1.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from geoflow.samplers import integrate
from geoflow.velocity_jvp import jvp


def divergence(velocity, path, x: Tensor, t, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Velocity and its exact divergence on the path's manifold.

    In R³ the divergence is Σ ⟨eᵢ, ∂v/∂eᵢ⟩ over the three axes. On S² it is that of the tangential
    part of v, Σ ⟨eᵢ, ∂v/∂eᵢ⟩ − 2 ⟨v, x⟩ over two orthonormal tangent vectors at x.

    >>> from geoflow import paths, sphere
    >>> x, north = sphere.uniform((1, 4)), torch.tensor([0.0, 0.0, 1.0])
    >>> v, div = divergence(lambda x, t, cond: north.expand_as(x), paths.RiemannianFlow(), x, 0.5)
    >>> torch.allclose(div, -2 * x[..., 2])  # the field of a pull to the pole
    True

    Args:
        velocity: (x (B, N, 3), t, cond) → (B, N, 3).
        path: see `geoflow.paths`.
        x: (B, N, 3) states; unit vectors on S².
        t: scalar, (B,) or (B, N).
        cond: (B, C) or None.

    Returns:
        Velocity (B, N, 3), tangential on S²; divergence (B, N).
    """
    frame = path.frame(x)
    v, rates = jvp(velocity, x, t, cond, frame)
    div = (frame * rates).sum((0, -1))
    if path.tangent:
        normal = (v * x).sum(-1)
        v, div = v - normal[..., None] * x, div - 2 * normal
    return v, div


def log_prob(
    velocity, path, x: Tensor, times: Tensor, cond: Tensor | None = None, solver: str = "rk4"
) -> Tensor:
    """Log-density of the flow at x, solving back from data to noise.

    >>> from geoflow import paths, sphere
    >>> x, still = sphere.uniform((1, 2)), lambda x, t, cond: torch.zeros_like(x)
    >>> log_prob(still, paths.RiemannianFlow(), x, torch.linspace(0, 1, 3))  # uniform stays uniform
    tensor([[-2.5310, -2.5310]])

    Args:
        velocity: (x (B, N, 3), t, cond) → (B, N, 3).
        path: see `geoflow.paths`.
        x: (B, N, 3) states at t = 1.
        times: (steps + 1,) from 0 to 1.
        cond: (B, C) or None.
        solver: see `geoflow.samplers.integrate`.

    Returns:
        (B, N) nats.
    """
    state, total = _solve(velocity, path, x, times.flip(0), cond, solver)
    return path.noise_log_prob(state) + total


def sample_with_log_prob(
    velocity, path, noise: Tensor, times: Tensor, cond: Tensor | None = None, solver: str = "rk4"
) -> tuple[Tensor, Tensor]:
    """Samples (B, N, 3) and their log-densities (B, N) in nats, from one forward solution.

    Arguments as in `log_prob`; noise: (B, N, 3) states at t = 0.

    >>> from geoflow import paths, sphere
    >>> x, still = sphere.uniform((1, 2)), lambda x, t, cond: torch.zeros_like(x)
    >>> sample_with_log_prob(still, paths.RiemannianFlow(), x, torch.linspace(0, 1, 3))[1]
    tensor([[-2.5310, -2.5310]])
    """
    state, total = _solve(velocity, path, noise, times, cond, solver)
    return state, path.noise_log_prob(noise) - total


def _solve(velocity, path, x, times, cond, solver) -> tuple[Tensor, Tensor]:
    """The last state, and the divergence integrated along the way."""

    def field(x: Tensor, t) -> tuple[Tensor, Tensor]:
        return divergence(velocity, path, x, t, cond)

    *_, (state, total) = integrate(field, path, x, times, solver)
    assert total is not None
    return state, total


# Densities of directions, for methods in R³

RAY_POINTS = 12  # points in each look along a ray
RAY_LOOKS = (0.1, 0.3, 1.0)  # powers of the density by which the closer looks place their points
RAY_REACH = (0.02, 4.5)  # radii between which the first look lies
RAY_FOCUS = 0.005  # distance from radius 1 within which the first look is densest


def radial_marginal(log_prob: Callable[[Tensor], Tensor], u: Tensor) -> Tensor:
    """Log-density of the direction of a random point in R³: log ∫ p(r u) r² dr.

    A trained flow ends in a thin shell whose radius and thickness differ from place to place. So
    the ray is looked at four times: first at radii that are dense around 1, then at quantiles of
    what the values so far promise, of the density to the powers `RAY_LOOKS`.

    >>> from geoflow import paths, sphere
    >>> normal = paths.EuclideanFlow().noise_log_prob  # N(0, I): no direction is preferred
    >>> radial_marginal(normal, sphere.uniform((1, 1))).round(decimals=1)
    tensor([[-2.5000]])

    Args:
        log_prob: (B, N', 3) → (B, N') nats with respect to volume.
        u: (B, N, 3) unit vectors.

    Returns:
        (B, N) nats with respect to area.
    """

    def along(q: Tensor) -> Tensor:
        """log of p r² dr/dq at r = 1 + RAY_FOCUS sinh q: (B, N, m) → (B, N, m)."""
        r = 1 + RAY_FOCUS * q.sinh()
        rays = u[..., None, :] * r[..., None].to(u)
        values = log_prob(rays.flatten(1, 2)).unflatten(1, (-1, q.shape[-1])).double()
        return values + 2 * r.log() + (RAY_FOCUS * q.cosh()).log()

    low, high = (math.asinh((radius - 1) / RAY_FOCUS) for radius in RAY_REACH)
    q = torch.linspace(low, high, RAY_POINTS, dtype=torch.float64, device=u.device)
    q = q.expand(*u.shape[:-1], -1)
    values = along(q)
    shares = (torch.arange(RAY_POINTS, dtype=torch.float64, device=u.device) + 0.5) / RAY_POINTS
    for power in RAY_LOOKS:
        mass, _ = _segments(q, power * values)
        cumulative = mass.cumsum(-1)
        wanted = shares * cumulative[..., -1:]
        i = torch.searchsorted(cumulative, wanted).clamp(max=mass.shape[-1] - 1)
        inside = 1 - (cumulative.gather(-1, i) - wanted) / mass.gather(-1, i)
        closer = torch.lerp(q.gather(-1, i), q.gather(-1, i + 1), inside.clamp(0, 1))
        q, order = torch.cat([q, closer], -1).sort(-1)
        values = torch.cat([values, along(closer)], -1).gather(-1, order)
    mass, top = _segments(q, values)
    return (mass.sum(-1).log() + top).to(u)


def _segments(q: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """∫ exp(values) dq over each interval, divided by exp(top), and that top.

    Values are taken as linear in an interval of length h, ∫ = h (e^b − e^a) / (b − a), and
    corrected to second order for their curvature c at its ends by the factor exp(−c h²/12).
    """
    top = values.amax(-1, keepdim=True)
    height = (values - top).exp()
    h, rise = q.diff(dim=-1).clamp(min=1e-12), values.diff(dim=-1)
    flat = rise.abs() < 1e-4
    average = (height[..., 1:] + height[..., :-1]) / 2
    mean = torch.where(flat, average, height.diff(dim=-1) / torch.where(flat, 1.0, rise))
    curvature = 2 * (rise / h).diff(dim=-1) / (h[..., 1:] + h[..., :-1])  # at inner points
    curvature = torch.cat([curvature[..., :1], curvature, curvature[..., -1:]], -1)
    bend = (curvature[..., 1:] + curvature[..., :-1]) / 2 * h**2 / 12
    return mean * h * (-bend).clamp(-0.5, 0.5).exp(), top[..., 0]
