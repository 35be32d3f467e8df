"""Solvers for dx/dt = v(x, t) on S² and in R³, guidance, trajectories, samples.

A step from x moves by u in the tangent plane and lands at exp_x(u). The velocities of a step's
stages are pulled back to that plane with the inverse differential of exp (≤ 3 rad). A classical
method therefore keeps its order on the sphere, states never leave it, and one Euler step follows a
geodesic exactly. In R³ the same loop has x + u in place of exp_x(u).
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from geoflow.runtime import choose, recording

Field = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]
"""(x, t) → (velocity (..., 3), rate (...) of a quantity to be integrated with it, or None)."""


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge–Kutta method in Butcher's notation."""

    order: int
    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]


RK4_ROWS = ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0))
SOLVERS = {
    "euler": Tableau(1, (0.0,), ((),), (1.0,)),
    "midpoint": Tableau(2, (0.0, 0.5), ((), (0.5,)), (0.0, 1.0)),
    "heun": Tableau(2, (0.0, 1.0), ((), (1.0,)), (0.5, 0.5)),
    "rk4": Tableau(4, (0.0, 0.5, 0.5, 1.0), RK4_ROWS, (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
}
AB3, DDIM, PLONK, JUMP = "ab3", "ddim", "plonk", "jump"
FIXED = (*SOLVERS, AB3)
ADAPTIVE = ("dopri5", "bosh3")
NAMES = (*FIXED, *ADAPTIVE, DDIM, PLONK, JUMP)
TOLERANCE = 1e-6


@dataclass(frozen=True)
class SolverOptions:
    """How a flow is solved.

    >>> SolverOptions(steps=8, guidance=2.0)
    SolverOptions(steps=8, solver='rk4', guidance=2.0, schedule=None)
    """

    steps: int = 16
    solver: str = "rk4"  # see `integrate`
    guidance: float = 0.0  # ω, 0 is none
    schedule: str | None = None  # its name; None: the model's own


def evaluations(solver: str, steps: int) -> int | None:
    """Calls of the velocity that a solver makes; None for adaptive ones, which decide as they go.

    >>> evaluations("rk4", 16), evaluations("ab3", 16)
    (64, 17)
    """
    choose("solver", solver, NAMES)
    if solver in ADAPTIVE:
        return None
    if solver == AB3:
        return steps + 1
    return steps if solver in (DDIM, PLONK, JUMP) else len(SOLVERS[solver].b) * steps


def integrate(
    field: Field, path, x: Tensor, times: Tensor, solver: str
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """States at each of `times`, the first being x itself; times may run backwards.

    >>> from geoflow import paths
    >>> def field(x, t):  # the velocity, and a rate to be integrated along the way
    ...     return torch.ones_like(x), 2 * x[..., 0]
    >>> path, times = paths.EuclideanFlow(), torch.linspace(0, 1, 3)
    >>> *_, (x, total) = integrate(field, path, torch.zeros(1, 1), times, "rk4")
    >>> x, total
    (tensor([[1.]]), tensor([1.]))

    Args:
        field: (x, t) → (velocity, rate or None).
        path: the manifold, see `geoflow.paths`.
        x: (..., 3) state at times[0].
        times: (steps + 1,) monotone.
        solver: `euler`, `midpoint`, `heun`, `rk4`, `ab3`: one step per interval. `dopri5`, `bosh3`:
            adaptive, by torchdiffeq, with one step size for the whole batch. `ddim`: for diffusion,
            samples only. `plonk` (`geoflow.plonk`) and `jump` (`geoflow.flowmap`) solve no ODE.

    Yields:
        (x (..., 3), integral of the rate since the start (...) or None).

    Raises:
        ValueError: unknown solver, `plonk`, `jump`; `ddim` with another path or for a likelihood.
        FloatingPointError: the velocity is not finite.
    """
    choose("solver", solver, NAMES)
    if solver in (PLONK, JUMP):
        text = f"solver {solver!r} draws samples; a likelihood needs another, such as 'rk4'"
        raise ValueError(f"{text}; {JUMP!r} needs a flow map")
    if solver == DDIM and path.name != "diffusion":
        text = f"solver {DDIM!r} with method {path.name!r}"
        raise ValueError(f"{text}; expected 'diffusion', or another solver")
    if solver in SOLVERS:
        return _runge_kutta(field, path, x, times, SOLVERS[solver])
    if solver in ADAPTIVE:
        return _adaptive(field, path, x, times, solver)
    return (_adams_bashforth if solver == AB3 else _ddim)(field, path, x, times)


@torch.no_grad()
def _runge_kutta(field, path, x, times, tableau):
    total = None
    yield x, total
    for s, s_next in _intervals(path, times):
        x, total = _step(field, path, x, total, s, s_next, tableau, field(x, path.time(s)))
        yield x, total


def _intervals(path, times):
    """Pairs of neighbouring times by the path's clock."""
    clock = path.clock(times).tolist()
    return zip(clock[:-1], clock[1:], strict=True)


def _step(field, path, x, total, s, s_next, tableau, first):
    """One Runge–Kutta step, whose first stage, (velocity, rate), is known."""
    h, slopes, rates = s_next - s, [first[0]], [first[1]]
    for c, row in zip(tableau.c[1:], tableau.a[1:], strict=True):
        u = h * _weighted(row, slopes)
        v, rate = field(path.exp(x, u), path.time(s + c * h))
        slopes.append(path.exp_differential_inverse(x, u, v))
        rates.append(rate)
    return _moved(path, x, total, s_next, [h * b for b in tableau.b], slopes, rates)


def _moved(path, x, total, s_next, weights, slopes, rates):
    """The next state, and what is integrated along the way."""
    x = path.exp(x, _weighted(weights, slopes))
    check_finite(x, float(path.time(s_next)))
    if rates[0] is not None:
        gain = _weighted(weights, rates)
        total = gain if total is None else total + gain
    return x, total


def _weighted(weights, terms):
    return sum((w * term for w, term in zip(weights, terms, strict=True) if w), 0.0)


@torch.no_grad()
def _adams_bashforth(field, path, x, times):
    """Adams–Bashforth of order 3 on uneven steps: one call of the field per step.

    A step integrates the parabola through the velocities at this state and the two before. The
    first step is the midpoint rule's and the second has a line, which keeps order 3.
    """
    total, history = None, []
    yield x, total
    for s, s_next in _intervals(path, times):
        v, rate = field(x, path.time(s))
        known = [state for state in history[:2] if state[0] != s]  # two states may have equal times
        history = [(s, x, v, rate), *known]
        if len(history) == 1:
            midpoint = SOLVERS["midpoint"]
            x, total = _step(field, path, x, total, s, s_next, midpoint, (v, rate))
        else:
            slopes = [v]
            for _, y, w, _ in history[1:]:
                slopes.append(path.exp_differential_inverse(x, path.log(x, y), w))
            weights = _quadrature([at for at, *_ in history], s_next)
            x, total = _moved(path, x, total, s_next, weights, slopes, [r for *_, r in history])
        yield x, total


def _quadrature(nodes: list[float], end: float) -> list[float]:
    """Weights w with Σ wᵢ p(nodesᵢ) = ∫ p from nodes₀ to end, for polynomials of degree < n."""
    offsets = torch.tensor(nodes, dtype=torch.float64) - nodes[0]
    powers = torch.arange(len(nodes), dtype=torch.float64)
    integrals = (end - nodes[0]) ** (powers + 1) / (powers + 1)
    return torch.linalg.solve(offsets ** powers[:, None], integrals).tolist()


@torch.no_grad()
def _ddim(field, path, x, times):
    """x ← cos h x + sin h dx/dφ: exact where the prediction is constant (Song et al., 2021)."""
    yield x, None
    for s, s_next in _intervals(path, times):
        v, rate = field(x, path.time(s))
        if rate is not None:
            raise ValueError(f"solver {DDIM!r} draws samples; a likelihood needs another")
        x = math.cos(s_next - s) * x + math.sin(s_next - s) * v
        check_finite(x, float(path.time(s_next)))
        yield x, None


@torch.no_grad()
def _adaptive(field, path, x, times, solver):
    from torchdiffeq import odeint

    has_rate = field(x, float(times[0]))[1] is not None

    def ambient(s, state):
        t = path.time(s.clamp(*ends))  # a trial step may lead beyond the ends
        v, rate = field(path.project(state[0]), t)
        check_finite(v, float(t))
        return (v, rate) if has_rate else (v,)

    state = (x, torch.zeros_like(x[..., 0])) if has_rate else (x,)
    clock = path.clock(times).to(x)
    ends = clock.aminmax()
    how = dict(method=solver, rtol=TOLERANCE, atol=TOLERANCE, options={"step_t": clock[1:]})
    yield x, None
    for s, s_next in zip(clock[:-1], clock[1:], strict=True):
        if s != s_next:
            state = tuple(e[-1] for e in odeint(ambient, state, torch.stack([s, s_next]), **how))
        check_finite(state[0], float(path.time(s_next)))
        state = (path.project(state[0]), *state[1:])
        yield state[0], state[1] if has_rate else None


def check_finite(x: Tensor, t: float) -> None:
    """A FloatingPointError if a state or velocity at time t is NaN or infinite."""
    if not recording(x) and not bool(x.isfinite().all()):
        count = f"{int((~x.isfinite()).any(-1).sum())} states are NaN or infinite"
        raise FloatingPointError(f"the velocity is not finite near t = {t:.4g}: {count}")


def guided(velocity, guidance: float):
    """The velocity with classifier-free guidance, see `Guided`; ω = 0 is no guidance.

    >>> field = guided(lambda x, t, cond: cond[:, None].expand_as(x), 2.0)
    >>> field(torch.zeros(1, 1, 3), 0.5, torch.ones(1, 3))  # 1 + 2 (1 − 0)
    tensor([[[3., 3., 3.]]])
    """
    return Guided(velocity, guidance) if guidance else velocity


@dataclass(frozen=True)
class Guided:
    """v(c) + ω (v(c) − v(∅)), in one call of twice the batch (PLONK, section 3.3)."""

    velocity: Any
    guidance: float

    def __call__(self, x: Tensor, t, cond: Tensor | None = None) -> Tensor:
        if cond is None:
            return self.velocity(x, t, None)
        return self.combine(self.velocity(*self.both(x, t, cond)))

    def both(self, x: Tensor, t, cond: Tensor) -> tuple[Tensor, Any, Tensor]:
        """Arguments for the condition, followed by those for the null condition."""
        cond = cond.expand(len(x), -1)
        t = torch.cat([t, t]) if isinstance(t, Tensor) and t.ndim else t
        return torch.cat([x, x]), t, torch.cat([cond, torch.zeros_like(cond)])

    def combine(self, v: Tensor) -> Tensor:
        """(2B, ...) answers to `both` → (B, ...): linear, so it also maps their derivatives."""
        with_cond, without = v.chunk(2)
        return with_cond + self.guidance * (with_cond - without)


def trajectory(
    velocity, path, noise: Tensor, times: Tensor, cond: Tensor | None = None, solver: str = "rk4"
) -> Iterator[Tensor]:
    """States x(t) at each of `times`, from noise to data.

    >>> from geoflow import paths
    >>> path, ones = paths.EuclideanFlow(), lambda x, t, cond: torch.ones_like(x)
    >>> [x.tolist() for x in trajectory(ones, path, torch.zeros(1), torch.linspace(0, 1, 3))]
    [[0.0], [0.5], [1.0]]

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
    """The last state of `trajectory`: (B, N, 3).

    >>> from geoflow import paths, sphere
    >>> path, place = paths.RiemannianFlow(), sphere.from_latlon(torch.tensor([48.9, 2.4]))
    >>> def velocity(x, t, cond):  # every point arrives at one place at time 1
    ...     return sphere.log(x, place.expand_as(x)) / (1 - t)
    >>> x = sample(velocity, path, path.noise((1, 5)), torch.linspace(0, 1, 5), solver="euler")
    >>> sphere.to_latlon(x)[0, 0].round()
    tensor([49.,  2.])
    """
    for x in trajectory(velocity, path, noise, times, cond, solver):
        pass
    return x


def noise_for(path, keys, n: int, seed: int) -> Tensor:
    """Starting points that belong to an image, not to its place in a batch: keyed by (seed, key).

    >>> from geoflow import paths
    >>> noise_for(paths.RiemannianFlow(), ["a.jpg", "b.jpg"], n=5, seed=0).shape
    torch.Size([2, 5, 3])

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
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        noises.append(path.noise((n,), generator))
    return torch.stack(noises)
