"""What a flow map learns: alone, its velocity and to jump along it; or from the flow of a teacher.

Alone it learns its velocity on the diagonal s = t, by flow matching, and elsewhere by Lagrangian
self-distillation (Boffi et al., 2025; on manifolds Davis et al., 2025): the end of a jump must move
with the velocity that the network has there,

    ∂_s X_{t,s}(x) = v_s(X_{t,s}(x)),      X_{t,t}(x) = x

A teacher's trajectories show where jumps end, which is learnt in far fewer steps. They start from
fresh noise at every step of the training: a fixed set of them would be learnt by heart.

A network is continuous, so it cannot follow trajectories on both sides of an edge between two
basins. What counts is how the ends of many jumps are spread. So clouds of ends are compared with
true places as well, by a score that is least where both have the same distribution.
"""

from dataclasses import dataclass, replace
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
FOLLOWING = 5  # one image of so many follows a teacher
NEAR, FAR = ((1492.7, 1.0), (300.0, 0.3)), 5000.0  # km: the kernels of clouds, their weights


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

    def index(self, x1: Tensor) -> Tensor:
        """The numbers of this process's rows in the whole batch."""
        rank, world = self.share
        return torch.arange(rank, world * len(x1), world, device=x1.device)

    def plan(self, x1: Tensor, schedule: Schedule) -> "_Plan":
        """Of trajectories with `draws` points of noise, x1 being (B, draws, 3)."""
        draws = x1.shape[1]
        shift = losses.draw_times((1,), linear, self.generator, like=x1) - 0.5
        jumps = self.times(x1, (3, PAIRS * draws))
        return _Plan(schedule, shift, jumps, self.times(x1, (draws,), schedule))


@dataclass(frozen=True)
class _Plan:
    """What is chosen at random of a teacher's trajectories."""

    schedule: Schedule  # of its steps
    shift: Tensor  # (1,), by which its inner steps move
    jumps: Tensor  # (B, 3, pairs), uniform: from noise or not, first and last state
    t: Tensor  # (B, N), times at which velocities are compared

    def of(self, rows: Tensor) -> "_Plan":
        return replace(self, jumps=self.jumps[rows], t=self.t[rows])


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
    jumps = drawn.index(x1) * JUMPING < share[1] * len(x1)
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
    plan = drawn.plan(x1, schedule)
    errors, _ = _followed(network, _Guided(teacher, omega), path, x0, x1, cond, plan)
    return errors.mean()


def cloud_loss(
    network: FlowMapTransformer, teacher, path, x1: Tensor, cond: Tensor | None = None, *,
    schedule: Schedule = linear, draws: int = 8, dropout: float = 0.1,
    generator: torch.Generator | None = None, share: Share = WHOLE,
) -> Tensor:  # fmt: skip
    """Mean `cloud_score` of jumps, plus the `distillation_loss` of a fifth of the images.

    The cloud of an image has `draws` jumps from fresh noise. It is compared with the true place,
    without guidance. For a fifth of the images, half of which are guided, it is compared with the
    ends of the teacher's trajectories, as there are no data under guidance.

    >>> from geoflow import paths
    >>> from geoflow.velocity import VelocityTransformer
    >>> teacher = VelocityTransformer(8, dim=32, depth=2)
    >>> network, x1 = FlowMapTransformer(8, dim=32, depth=2), sphere.uniform(16)
    >>> path, cond = paths.RiemannianFlow(), torch.randn(16, 8)
    >>> cloud_loss(network, teacher, path, x1, cond).shape
    torch.Size([])

    Arguments are those of `distillation_loss`.

    Raises:
        ValueError: a single draw, which is no cloud.
    """
    if draws < 2:
        raise ValueError(f"draws={draws}; expected at least 2, as one point is no cloud")
    drawn, x1 = _Draws(generator, share), x1[:, None].expand(-1, draws, -1)  # (B, N, 3)
    cond, follows = drawn.condition(cond, dropout), drawn.index(x1) % FOLLOWING == 0
    omega = drawn.guidance(x1) * follows[:, None]
    noise, x0, plan = drawn.noise(path, x1), drawn.noise(path, x1), drawn.plan(x1, schedule)
    cloud = network.jump(noise, 0.0, 1.0, cond, omega)

    some, field = None if cond is None else cond[follows], _Guided(teacher, omega[follows])
    errors, ends = _followed(network, field, path, x0[follows], x1[follows], some, plan.of(follows))
    scores = torch.empty_like(x1[:, 0, 0])
    scores[~follows] = cloud_score(cloud[~follows], x1[~follows, :1])
    scores[follows] = cloud_score(cloud[follows], ends) + FOLLOWING * errors
    return scores.mean()


def cloud_score(cloud: Tensor, places: Tensor) -> Tensor:
    """2 E ρ(X, Y) − E ρ(X, X′) of clouds and places: (B, N, 3), (B, K, 3) → (B,).

    X and X′ are two points of the cloud, Y is one of the places, and with the distance d

        ρ = d / 5000 km + Σ w (1 − exp(−d / scale)),

    where one scale is that of the GeoScore. In expectation the score is least if X is distributed
    as Y: an energy score and kernel scores (Gneiting & Raftery, 2007).

    >>> x, y = (sphere.uniform((1, 64), torch.Generator().manual_seed(i)) for i in range(2))
    >>> cloud_score(x, y) < cloud_score(x[:, :1].expand_as(x), y)
    tensor([True])
    """

    def rho(x: Tensor, y: Tensor) -> Tensor:
        km = sphere.distance_km(x, y)
        return km / FAR + sum(weight * (1 - torch.exp(-km / scale)) for scale, weight in NEAR)

    i, j = torch.triu_indices(cloud.shape[1], cloud.shape[1], 1, device=cloud.device)
    to_places = rho(cloud[:, :, None], places[:, None]).mean((1, 2))
    return 2 * to_places - rho(cloud[:, i], cloud[:, j]).mean(1)


def _followed(network, field, path, x0: Tensor, x1: Tensor, cond, plan):
    """Errors of each image (B,) on the trajectories of a guided teacher, and their ends."""
    even = torch.arange(STEPS + 1, device=x1.device)
    inner = (even > 0) & (even < STEPS)
    grid = plan.schedule((even + plan.shift * inner) / STEPS)
    way = torch.stack(list(samplers.trajectory(field, path, x0, grid, cond, "ab3")))

    noisy, i, j = plan.jumps.unbind(1)
    i = (i * STEPS * (noisy >= FROM_NOISE)).long().clamp(max=STEPS - 1)
    j = i + 1 + (j * (STEPS - i)).long().clamp(max=STEPS - 1)
    j = j.clamp(max=STEPS)
    row = torch.arange(len(x1), device=x1.device)[:, None]
    draw = torch.arange(x1.shape[1], device=x1.device).repeat(PAIRS)
    end = network.jump(way[i, row, draw], grid[i], grid[j], cond, field.guidance)
    missed = (end - way[j, row, draw]).square().sum(-1) / (1 - grid[i])

    x = path.sample(x0, x1, plan.t).x_t
    with torch.no_grad():
        v = field(x, plan.t, cond)
    wrong = network.mean_velocity(x, plan.t, plan.t, cond, field.guidance) - v
    errors = missed.mean(1) + DIAGONAL * wrong.square().sum(-1).mean(1)
    return errors / (1 + field.guidance[:, 0]).square(), way[-1]


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
