"""What a flow map learns: alone, its velocity and to jump along it; or from the flow of a teacher.

Alone it learns its velocity on the diagonal s = t, by flow matching, and elsewhere by Lagrangian
self-distillation (Boffi et al., 2025; on manifolds Davis et al., 2025): the end of a jump must move
with the velocity that the network has there,

    ∂_s X_{t,s}(x) = v_s(X_{t,s}(x)),      X_{t,t}(x) = x

A teacher's trajectories show where jumps end, which is learnt in far fewer steps. They start from
fresh noise at every step of the training: a fixed set of them would be learnt by heart.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from geoflow import losses, samplers, sphere
from geoflow.flowmap.differentials import exp_differential
from geoflow.flowmap.network import MOST_GUIDANCE, FlowMapTransformer
from geoflow.losses import WHOLE, Share
from geoflow.schedules import Schedule, linear

UNGUIDED, FROM_NOISE = 0.5, 0.5  # shares of the images without guidance; of the jumps from t = 0
JUMPING = 4  # alone, one of so many images learns a jump, the others the velocity
STEPS, PAIRS, DIAGONAL = 10, 5, 0.1  # of a teacher's trajectory; jumps on it; weight of velocities


@dataclass(frozen=True)
class _Draws:
    """The random part of a batch: this process's rows of what is drawn for the whole batch."""

    generator: torch.Generator | None
    share: Share

    def times(self, x1: Tensor, shape: tuple, schedule: Schedule = linear) -> Tensor:
        """(B, *shape) times; without a schedule uniform numbers."""

        def draw(x: Tensor) -> Tensor:
            return losses.draw_times((len(x), *shape), schedule, self.generator, like=x)

        return losses.of_share(self.share, draw, x1)

    def noise(self, path, x1: Tensor) -> Tensor:
        return losses.of_share(self.share, lambda x: path.noise_like(x, self.generator), x1)

    def condition(self, cond: Tensor | None, dropout: float) -> Tensor | None:
        def draw(cond: Tensor) -> Tensor:
            return losses.drop_condition(cond, dropout, self.generator)

        return None if cond is None else losses.of_share(self.share, draw, cond)

    def guidance(self, x1: Tensor) -> Tensor:
        """ω of each image, (B, 1): 0 for a share of them, uniform for the others."""
        return MOST_GUIDANCE * (self.times(x1, (1,)) - UNGUIDED).clamp(min=0) / (1 - UNGUIDED)


def self_distillation_loss(
    network: FlowMapTransformer, path, x1: Tensor, cond: Tensor | None = None, *,
    schedule: Schedule = linear, draws: int = 1, dropout: float = 0.1,
    generator: torch.Generator | None = None, share: Share = WHOLE,
) -> Tensor:  # fmt: skip
    """Mean over images of |u_{t,t} − v_t|², for a fourth of (1 − s)² |∂_s X_{t,s} − v_s|².

    Each image has a guidance ω of its own, half of them none. On the diagonal v_t is the target of
    the path and ω (v(c) − v(∅)) by the network itself; elsewhere v_s is the network's diagonal. The
    error counts relative to 1 + ω. Times are drawn by the schedule, s > t, and half of the jumps
    start from noise. In −log(1 − s), a clock that is even near the data, the end of a jump moves by
    (1 − s) ∂_s X: hence the weight. No gradient passes through v.

    >>> from geoflow import paths
    >>> network, x1 = FlowMapTransformer(8, dim=32, depth=2), sphere.uniform(16)
    >>> self_distillation_loss(network, paths.RiemannianFlow(), x1, torch.randn(16, 8)).shape
    torch.Size([])

    Arguments are those of `losses.flow_matching_loss`.
    """
    drawn, x1 = _Draws(generator, share), x1[:, None].expand(-1, draws, -1)  # (B, N, 3)
    x0, cond = drawn.noise(path, x1), drawn.condition(cond, dropout)
    times, guidance = drawn.times(x1, (2, draws), schedule), drawn.guidance(x1)
    rank, world = share
    n = world * len(x1)
    jumps = torch.arange(rank, n, world, device=x1.device) * JUMPING < n
    first = times.amin(1) * (drawn.times(x1, (1,)) >= FROM_NOISE)
    at = path.sample(x0, x1, torch.where(jumps[:, None], first, times[:, 0]))

    def rows(chosen: Tensor):
        c = None if cond is None else cond[chosen]
        return at.x_t[chosen], at.t[chosen], c, guidance[chosen]

    def velocity(x: Tensor, t: Tensor, c: Tensor | None, omega: Tensor) -> Tensor:
        with torch.no_grad():
            return network.mean_velocity(x, t, t, c, omega)

    x, t, c, omega = rows(~jumps)
    target = at.target[~jumps]
    if c is not None:
        away = velocity(x, t, c, 0 * omega) - velocity(x, t, None, omega)
        target = target + omega[..., None] * away
    wrong = (network.mean_velocity(x, t, t, c, omega) - target) / (1 + omega)[..., None]
    x, t, c, omega = rows(jumps)
    s = times.amax(1)[jumps]
    drift = lagrangian_residual(network, velocity, x, t, s, c, omega)
    drift = drift * ((1 - s) / (1 + omega))[..., None]
    return torch.cat([wrong, drift]).square().sum(-1).mean()


def lagrangian_residual(
    network: FlowMapTransformer, velocity, x: Tensor, t: Tensor, s: Tensor, cond, guidance
) -> Tensor:
    """∂_s X_{t,s}(x) − v_s(X_{t,s}(x)), which vanishes for the map of the flow: (B, N, 3).

    With w = (s − t) u_{t,s}(x) the end moves by (d exp_x)_w (u + (s − t) ∂_s u).

    >>> network = FlowMapTransformer(8, dim=32, depth=2)
    >>> x, t = sphere.uniform((4, 5)), torch.zeros(4, 5)
    >>> def velocity(x, t, cond, guidance):
    ...     return network.mean_velocity(x, t, t, cond, guidance)
    >>> lagrangian_residual(network, velocity, x, t, t + 0.5, None, torch.zeros(4, 1)).shape
    torch.Size([4, 5, 3])

    Args:
        velocity: (x, t, cond, guidance) → v, through which no gradient passes.
        x: (B, N, 3) unit vectors, at times t (B, N).
        s: (B, N), the times of arrival.
        cond: (B, C) or None.
        guidance: (B, 1).
    """

    def mean_velocity(s: Tensor) -> Tensor:
        return network.mean_velocity(x, t, s, cond, guidance)

    u, rate = torch.func.jvp(mean_velocity, (s,), (torch.ones_like(s),))  # ty: ignore[invalid-assignment]
    length = (s - t)[..., None]
    moves = exp_differential(x, length * u, u + length * rate)
    end = sphere.exp(x, length * u).detach()
    return moves - velocity(end, s, cond, guidance)


def distillation_loss(
    network: FlowMapTransformer, teacher, path, x1: Tensor, cond: Tensor | None = None, *,
    schedule: Schedule = linear, draws: int = 1, dropout: float = 0.1,
    generator: torch.Generator | None = None, share: Share = WHOLE,
) -> Tensor:  # fmt: skip
    """|X_{t,s}(x_t) − x_s|² / (1 − t) on a teacher's trajectories, plus |u_{t,t} − v_t|²/10: means.

    A trajectory starts from fresh noise, and AB3 solves it in `STEPS` steps, placed by the schedule
    up to a random shift. Jumps join two of its states; half of them start from noise. Velocities
    are compared at points of the path. Each image has a guidance ω of its own, half of them none,
    and errors count relative to 1 + ω.

    >>> from geoflow import paths
    >>> from geoflow.velocity import VelocityTransformer
    >>> teacher = VelocityTransformer(8, dim=32, depth=2)
    >>> network, x1 = FlowMapTransformer(8, dim=32, depth=2), sphere.uniform(16)
    >>> path, cond = paths.RiemannianFlow(), torch.randn(16, 8)
    >>> distillation_loss(network, teacher, path, x1, cond).shape
    torch.Size([])

    Args:
        teacher: a velocity on S², (x (B, N, 3), t, cond (B, C)) → (B, N, 3).

    Other arguments are those of `losses.flow_matching_loss`.
    """
    drawn, x1 = _Draws(generator, share), x1[:, None].expand(-1, draws, -1)  # (B, N, 3)
    x0, cond, omega = drawn.noise(path, x1), drawn.condition(cond, dropout), drawn.guidance(x1)
    field = _Guided(teacher, omega)
    shift = losses.draw_times((1,), linear, generator, like=x1) - 0.5
    even = torch.arange(STEPS + 1, device=x1.device)
    grid = schedule((even + shift * ((even > 0) & (even < STEPS))) / STEPS)
    way = torch.stack(list(samplers.trajectory(field, path, x0, grid, cond, "ab3")))

    noisy, i, j = drawn.times(x1, (3, PAIRS * draws)).unbind(1)
    i = (i * STEPS * (noisy >= FROM_NOISE)).long().clamp(max=STEPS - 1)
    j = i + 1 + (j * (STEPS - i)).long().clamp(max=STEPS - 1)
    j = j.clamp(max=STEPS)
    row = torch.arange(len(x1), device=x1.device)[:, None]
    draw = torch.arange(draws, device=x1.device).repeat(PAIRS)
    end = network.jump(way[i, row, draw], grid[i], grid[j], cond, omega)
    missed = (end - way[j, row, draw]).square().sum(-1) / (1 - grid[i])

    t = drawn.times(x1, (draws,), schedule)
    x = path.sample(x0, x1, t).x_t
    with torch.no_grad():
        v = field(x, t, cond)
    wrong = (network.mean_velocity(x, t, t, cond, omega) - v).square().sum(-1)
    weight = 1 / (1 + omega).square()
    return (weight * missed).mean() + DIAGONAL * (weight * wrong).mean()


@dataclass(frozen=True)
class _Guided:
    """`samplers.Guided` with an ω of each image's own; those without any take one call."""

    velocity: Any
    guidance: Tensor  # (B, 1)

    def __call__(self, x: Tensor, t, cond: Tensor | None) -> Tensor:
        v = self.velocity(x, t, cond)
        rows = self.guidance[:, 0].nonzero()[:, 0]
        if cond is None or not len(rows):
            return v
        at = t[rows] if isinstance(t, Tensor) and t.ndim else t
        away = v[rows] - self.velocity(x[rows], at, None)
        return v.index_add(0, rows, self.guidance[rows, :, None] * away)
