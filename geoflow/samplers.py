"""Solvers for dx/dt = v(x, t), Runge–Kutta and Adams–Bashforth in the exponential chart, guidance, trajectories, samples.

A step from x displaces by u in the tangent plane and lands at exp_x(u); stage velocities are pulled back to that plane with the
exact inverse differential of exp. A classical method therefore keeps its order on the sphere, states never leave it, and a
geodesic is followed exactly by one Euler step. In R³ the same loop has x + u for a chart.

Adams–Bashforth, `ab3`, goes on from the velocities it has met, so that a step costs one call of the network. Where calls are dear and the
field is smooth it needs half the calls of RK4, or less; with long steps into a field that turns it is no match.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from geoflow.runtime import choose

Field = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]
"""(x, t) → (velocity (..., 3), rate (...) of a quantity to be integrated along the way, or None)."""


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge–Kutta method: times c, stage weights a, final weights b (Butcher's notation)."""

    order: int
    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]


SOLVERS = {
    "euler": Tableau(1, (0.0,), ((),), (1.0,)),
    "midpoint": Tableau(2, (0.0, 0.5), ((), (0.5,)), (0.0, 1.0)),
    "heun": Tableau(2, (0.0, 1.0), ((), (1.0,)), (0.5, 0.5)),
    "rk4": Tableau(
        4,
        (0.0, 0.5, 0.5, 1.0),
        ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)),
        (1 / 6, 1 / 3, 1 / 3, 1 / 6),
    ),
}
AB3, DDIM, PLONK = "ab3", "ddim", "plonk"
FIXED = (*SOLVERS, AB3)
ADAPTIVE = ("dopri5", "bosh3")
NAMES = (*FIXED, *ADAPTIVE, DDIM, PLONK)
TOLERANCE = 1e-6


def evaluations(solver: str, steps: int) -> int | None:
    """Calls of the velocity field that a fixed-step solver makes; None for an adaptive one, which decides as it goes."""
    choose("solver", solver, NAMES)
    if solver in ADAPTIVE:
        return None
    return (
        steps + 1
        if solver == AB3
        else steps
        if solver in (DDIM, PLONK)
        else len(SOLVERS[solver].b) * steps
    )


def integrate(
    field: Field, path, x: Tensor, times: Tensor, solver: str
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """States at each of `times`, the first being x itself; times may run backwards.

    Args:
        field: (x, t) → (velocity, rate or None).
        path: project, move, displacement and pull_back, see `geoflow.paths`.
        x: (..., 3) state at times[0].
        times: (steps + 1,) monotone.
        solver: `euler`, `midpoint`, `heun`, `rk4`, `ab3`: one step per interval; `dopri5`, `bosh3`: adaptive, by torchdiffeq, with
            one step size for the whole batch; `ddim`: for diffusion, samples only. `plonk`, which is no solver of the field's
            ODE, is in `geoflow.plonk`.

    Yields:
        (x (..., 3), integral of the rate since the start (...) or None).

    Raises:
        ValueError: unknown solver, `plonk`, or `ddim` with another path than diffusion or for a likelihood.
        FloatingPointError: the velocity is not finite.
    """
    choose("solver", solver, NAMES)
    if solver == PLONK:
        raise ValueError(
            f"solver {PLONK!r} draws samples, it does not solve the ODE; a likelihood needs another, such as 'rk4'"
        )
    if solver == DDIM and path.name != "diffusion":
        raise ValueError(
            f"solver {DDIM!r} with method {path.name!r}; expected 'diffusion', or another solver"
        )
    stepper = {DDIM: _ddim, AB3: _adams_bashforth}.get(solver) or (
        _runge_kutta if solver in SOLVERS else _adaptive
    )
    return stepper(field, path, x, times, solver)


@torch.no_grad()
def _runge_kutta(field, path, x, times, solver):
    total = None
    yield x, total
    clock = path.clock(times)
    for s, s_next in zip(clock[:-1].tolist(), clock[1:].tolist(), strict=True):
        x, total = _step(field, path, x, total, s, s_next, SOLVERS[solver], field(x, path.time(s)))
        yield x, total


def _step(field, path, x, total, s, s_next, tableau, first):
    """One Runge–Kutta step, whose first stage, (velocity, rate), is known."""
    h, slopes, rates = s_next - s, [first[0]], [first[1]]
    for c, row in zip(tableau.c[1:], tableau.a[1:], strict=True):
        u = h * _weighted(row, slopes)
        v, rate = field(path.move(x, u), path.time(s + c * h))
        slopes.append(path.pull_back(x, u, v))
        rates.append(rate)
    return _moved(path, x, total, s_next, [h * b for b in tableau.b], slopes, rates)


def _moved(path, x, total, s_next, weights, slopes, rates):
    """The next state, and what is integrated along the way."""
    x = path.move(x, _weighted(weights, slopes))
    _check_finite(x, float(path.time(s_next)))
    if rates[0] is not None:
        gain = _weighted(weights, rates)
        total = gain if total is None else total + gain
    return x, total


@torch.no_grad()
def _adams_bashforth(field, path, x, times, solver):
    """Along the parabola through the velocities here and at the two states before, seen in the chart here.

    The first step is the midpoint rule's, the second along a line: enough for order 3, since each is taken once.
    """
    total, history = None, []
    yield x, total
    clock = path.clock(times)
    for s, s_next in zip(clock[:-1].tolist(), clock[1:].tolist(), strict=True):
        v, rate = field(x, path.time(s))
        history = [
            (s, x, v, rate),
            *(known for known in history[:2] if known[0] != s),
        ]  # a step may have no length
        if len(history) == 1:
            x, total = _step(field, path, x, total, s, s_next, SOLVERS["midpoint"], (v, rate))
        else:
            slopes = [
                v,
                *(path.pull_back(x, path.displacement(x, y), w) for _, y, w, _ in history[1:]),
            ]
            weights = _quadrature([at for at, *_ in history], s_next)
            x, total = _moved(
                path, x, total, s_next, weights, slopes, [rate for *_, rate in history]
            )
        yield x, total


def _quadrature(nodes: list[float], end: float) -> list[float]:
    """Weights w with Σ w_i p(nodes_i) = ∫ p from nodes_0 to end, for all polynomials p of lower degree than there are nodes."""
    offsets = torch.tensor(nodes, dtype=torch.float64) - nodes[0]
    powers = torch.arange(len(nodes), dtype=torch.float64)
    return torch.linalg.solve(
        offsets ** powers[:, None], (end - nodes[0]) ** (powers + 1) / (powers + 1)
    ).tolist()


@torch.no_grad()
def _ddim(field, path, x, times, solver):
    """Song et al. (2021): with a constant prediction the state turns by the angle h, x ← cos h x + sin h dx/dφ."""
    yield x, None
    clock = path.clock(times)
    for s, s_next in zip(clock[:-1].tolist(), clock[1:].tolist(), strict=True):
        v, rate = field(x, path.time(s))
        if rate is not None:
            raise ValueError(
                f"solver {solver!r} draws samples; a likelihood needs another, such as 'rk4'"
            )
        x = math.cos(s_next - s) * x + math.sin(s_next - s) * v
        _check_finite(x, float(path.time(s_next)))
        yield x, None


def _weighted(weights, terms):
    return sum((w * term for w, term in zip(weights, terms, strict=True) if w), 0.0)


@torch.no_grad()
def _adaptive(field, path, x, times, solver):
    from torchdiffeq import odeint

    has_rate = field(x, float(times[0]))[1] is not None

    def ambient(s, state):
        v, rate = field(path.project(state[0]), path.time(s))
        _check_finite(v, float(path.time(s)))
        return (v, rate) if has_rate else (v,)

    state = (x, torch.zeros_like(x[..., 0])) if has_rate else (x,)
    clock = path.clock(times).to(x)
    yield x, None
    for s, s_next in zip(clock[:-1], clock[1:], strict=True):
        if s != s_next:
            ends = odeint(
                ambient,
                state,
                torch.stack([s, s_next]),
                method=solver,
                rtol=TOLERANCE,
                atol=TOLERANCE,
            )
            state = tuple(end[-1] for end in ends)
        _check_finite(state[0], float(path.time(s_next)))
        state = (path.project(state[0]), *state[1:])
        yield state[0], state[1] if has_rate else None


def _check_finite(x: Tensor, t: float) -> None:
    if not bool(x.isfinite().all()):
        raise FloatingPointError(
            f"the velocity is not finite near t = {t:.4g}: {int((~x.isfinite()).any(-1).sum())} states are NaN or infinite"
        )


def guided(velocity, guidance: float):
    """Classifier-free guidance: v(c) + ω (v(c) − v(∅)), in one call of twice the batch (PLONK, section 3.3; ω = 0 is no guidance)."""
    return Guided(velocity, guidance) if guidance else velocity


@dataclass(frozen=True)
class Guided:
    """See `guided`."""

    velocity: Any
    guidance: float

    @property
    def tangent(self) -> bool | None:
        return getattr(self.velocity, "tangent", None)

    def __call__(self, x: Tensor, t, cond: Tensor | None = None) -> Tensor:
        if cond is None:
            return self.velocity(x, t, None)
        return self._combine(
            self.velocity(torch.cat([x, x]), self._twice(t), self._both(x, cond)), dim=0
        )

    def jvp(self, x: Tensor, t, cond: Tensor | None, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity and its derivatives along directions (k, B, N, 3), as `VelocityTransformer.jvp`."""
        if cond is None:
            return self.velocity.jvp(x, t, None, directions)
        both = self._both(x, cond)
        v, rates = self.velocity.jvp(
            torch.cat([x, x]), self._twice(t), both, torch.cat([directions, directions], dim=1)
        )
        return self._combine(v, dim=0), self._combine(rates, dim=1)

    def _both(self, x: Tensor, cond: Tensor) -> Tensor:
        cond = cond.expand(len(x), -1)
        return torch.cat([cond, torch.zeros_like(cond)])

    def _twice(self, t):
        return torch.cat([t, t]) if isinstance(t, Tensor) and t.ndim else t

    def _combine(self, both: Tensor, dim: int) -> Tensor:
        with_cond, without = both.chunk(2, dim)
        return with_cond + self.guidance * (with_cond - without)


def trajectory(
    velocity, path, noise: Tensor, times: Tensor, cond: Tensor | None = None, solver: str = "rk4"
) -> Iterator[Tensor]:
    """States x(t) at each of `times`, from noise to data.

    Args:
        velocity: (x (B, N, 3), t, cond) → (B, N, 3).
        path: see `geoflow.paths`.
        noise: (B, N, 3) states at times[0].
        times: (steps + 1,), see `geoflow.schedules.time_grid`.
        cond: (B, C) or None.
        solver: see `integrate`.

    Yields:
        (B, N, 3), steps + 1 times; the first is `noise`.
    """
    for x, _ in integrate(lambda x, t: (velocity(x, t, cond), None), path, noise, times, solver):
        yield x


def sample(
    velocity, path, noise: Tensor, times: Tensor, cond: Tensor | None = None, solver: str = "rk4"
) -> Tensor:
    """The last state of `trajectory`: (B, N, 3)."""
    for x in trajectory(velocity, path, noise, times, cond, solver):
        pass
    return x


def noise_for(path, keys, n: int, seed: int) -> Tensor:
    """Starting points that belong to an image, not to its place in a batch: each key has a generator seeded by (seed, key).

    Args:
        path: whose noise.
        keys: B integers or strings, one per image.
        n: points per image.
        seed: any integer.

    Returns:
        (B, n, 3).
    """
    noises = []
    for key in keys:
        digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
        noises.append(
            path.noise((n,), torch.Generator().manual_seed(int.from_bytes(digest[:7], "big")))
        )
    return torch.stack(noises)
