"""Schedules: monotone warps of the time axis, [0, 1] → [0, 1] with 0 ↦ 0 and 1 ↦ 1.

A schedule says where training draws its times and where a sampler places its steps. Path, solver
and likelihood never see one. One that is flat near 1 spends its steps near the data, t = 1.

The paper writes the noise level κ(s') with s' = 1 − s, so t = 1 − κ (PLONK, section 3.1). Its
printed constants (α = −3, β = 7) contradict its text; the official code's −7 → 3 is used here.
"""

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from geoflow.runtime import choose, whole

Schedule = Callable[[Tensor], Tensor]


def linear(s: Tensor) -> Tensor:
    """t = s.

    >>> linear(torch.tensor([0.0, 0.5]))
    tensor([0.0000, 0.5000])
    """
    return s


def sigmoid(start: float, end: float) -> Schedule:
    """Sigmoid schedule: t(s) = (σ(end) − σ(end − s (end − start))) / (σ(end) − σ(start)).

    >>> sigmoid(-3, 3)(torch.tensor([0.0, 0.5, 1.0]))
    tensor([0.0000, 0.5000, 1.0000])

    Raises:
        ValueError: start is not below end.
    """
    if not start < end:
        raise ValueError(f"sigmoid schedule from {start} to {end}; expected start < end")
    low, high = 1 / (1 + math.exp(-start)), 1 / (1 + math.exp(-end))

    def warp(s: Tensor) -> Tensor:
        return ((high - torch.sigmoid(end - s * (end - start))) / (high - low)).clamp(0, 1)

    return warp


def cosine(s: Tensor) -> Tensor:
    """t = sin²(π s / 2)."""
    return torch.sin(s * (math.pi / 2)) ** 2


CLOCK_END = 1e-3  # ε of `log_clock`


def log_clock(t: Tensor, end: float = CLOCK_END) -> Tensor:
    """log(1 − (1 − ε) t) / log ε, with ε = end: even in the logarithm of the time left, 1 − t.

    It runs from 0 to 1 as t does. Each e-fold of 1 − t, down to about ε, has the same share.

    >>> log_clock(torch.tensor([0.0, 0.9, 0.99, 1.0])).round(decimals=2)
    tensor([0.0000, 0.3300, 0.6500, 1.0000])
    """
    return torch.log1p((end - 1) * t) / math.log(end)


def log_times(s: Tensor) -> Tensor:
    """The inverse of `log_clock`, t = (1 − ε^s) / (1 − ε).

    In R³ this is close to the weights that bound the NLL of a reverse SDE (Song, Durkan, …, 2021).
    """
    return (1 - CLOCK_END**s) / (1 - CLOCK_END)


EVEN_SHARE = 0.3  # of the times of `mixed_times`, those that are uniform


def mixed_times(s: Tensor, end: float = CLOCK_END, even: float = EVEN_SHARE) -> Tensor:
    """Quantiles of a mixture: 30 % of the times are uniform, 70 % are even in `log_clock`.

    Late times decide how sharp a density is, early ones between which places it is divided. This
    solves even · t + (1 − even) log_clock(t, end) = s by Newton's method, in the logarithm of the
    time left.

    >>> mixed_times(torch.tensor([0.0, 0.5, 1.0])).round(decimals=4)
    tensor([0.0000, 0.8981, 1.0000])
    """
    left, last = 1 - end, math.log(end)
    v = last * s  # log(1 − (1 − ε) t), at first as if no times were uniform
    for _ in range(4):
        rest = v.exp()
        error = even * (1 - rest) / left + (1 - even) / last * v - s
        v = v - error / ((1 - even) / last - even / left * rest)
    return ((1 - v.exp()) / left).clamp(0, 1)


SCHEDULES: dict[str, Schedule] = {
    "linear": linear,
    "sigmoid": sigmoid(-3, 3),
    "skewed-sigmoid": sigmoid(-7, 3),
    "cosine": cosine,
}


def few_steps(s: Tensor) -> Tensor:
    """t = 0.9 sigmoid(−7, 1.5)(s) + 0.1 s, for samplers of networks trained by the skewed sigmoid.

    With 8 to 32 steps such a sampler needs shorter steps in the middle than the skewed sigmoid
    gives, and fewer near the data.

    >>> few_steps(torch.tensor([0.0, 1.0])).round()
    tensor([0., 1.])
    """
    return 0.9 * sigmoid(-7, 1.5)(s) + 0.1 * s


def diffusion_steps(s: Tensor) -> Tensor:
    """Mixed times with short first steps, where a diffusion's velocity has a factor 1/sin φ."""
    return mixed_times(s**1.3, end=5e-4, even=0.2)


FEW_STEPS = "few-steps"
SAMPLING = {
    FEW_STEPS: few_steps,
    # On S² a sampler needs fewer steps in the last hundredth of the time than training needs draws
    # there. In R³ it needs more: densities lie in shells a few ten-thousandths thick.
    "mixed-steps": functools.partial(mixed_times, end=1e-2),
    "flow-steps": functools.partial(mixed_times, end=3e-4, even=0.15),
    "diffusion-steps": diffusion_steps,
}


def by_name(name: str) -> Schedule:
    """The schedule of a name: of `SCHEDULES` or `SAMPLING`, or `log` or `mixed`.

    >>> by_name("sigmoid")(torch.tensor([0.0, 0.5, 1.0]))
    tensor([0.0000, 0.5000, 1.0000])

    Raises:
        ValueError: unknown name.
    """
    schedules = {**SCHEDULES, **SAMPLING, "log": log_times, "mixed": mixed_times}
    return schedules[choose("schedule", name, schedules)]


def time_grid(schedule: Schedule, steps: int) -> Tensor:
    """Times 0 = t₀ < … < t_steps = 1 of a sampler with so many steps: (steps + 1,) float32.

    >>> time_grid(linear, 4)
    tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000])

    Raises:
        ValueError: steps < 1.
    """
    steps = whole(f"{steps!r} steps", steps)
    times = schedule(torch.linspace(0, 1, steps + 1, dtype=torch.float64))
    times[0], times[-1] = 0.0, 1.0
    return times.float()
