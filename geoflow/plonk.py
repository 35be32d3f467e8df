"""The paper's published models: their layout, and what only they need.

The nine checkpoints and their download are in `geoflow.data.published`. This file holds the network
that averages fast waves of the published time embedding, and the official sampler and "likelihood",
which are kept for comparison under names that say what they are.
"""

import copy
import functools
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from geoflow import likelihood, paths, samplers, schedules, sphere
from geoflow.data import model_files
from geoflow.data.published import CONFIG
from geoflow.data.published import MODELS as MODELS
from geoflow.data.published import WEIGHTS as WEIGHTS
from geoflow.data.published import Published as Published
from geoflow.data.published import download as download
from geoflow.data.published import named_after as named_after
from geoflow.data.published import official_name as official_name
from geoflow.data.published import published as published
from geoflow.velocity import VelocityTransformer

SCHEDULE = "skewed-sigmoid"
STEPS = 250


def network(folder: Path, method: str) -> "TimeAveraged":
    """The network of a folder in the official layout.

    >>> import tempfile
    >>> from safetensors.torch import save_file
    >>> from geoflow import runtime
    >>> config, folder = {"cond_dim": 8, "dim": 16, "depth": 1}, Path(tempfile.mkdtemp())
    >>> weights = averaged_network("flow", config).state_dict()
    >>> save_file({official_name(name): w for name, w in weights.items()}, folder / WEIGHTS)
    >>> runtime.write_json(folder / CONFIG, config | {"input_dim": 3})
    >>> network(folder, "flow").tangent
    False

    Args:
        folder: with `config.json` and `model.safetensors`.
        method: `riemannian`, `flow` or `diffusion`: the files do not say which.

    Raises:
        ValueError: files that are damaged or do not belong together; the first mismatch is named.
        FileNotFoundError: a file is missing.
    """
    config, theirs = model_files.read(folder)
    model_files.check_numbers(folder / CONFIG, config)
    config.pop("input_dim", None)
    theirs.pop("time_embedder.encode_time.freqs", None)  # a constant
    make = functools.partial(averaged_network, method, config)
    return model_files.build(folder, make, theirs, official_name).eval()


def averaged_network(method: str, config: dict) -> "TimeAveraged":
    """A fresh network that averages over time, for a method: riemannian, flow or diffusion.

    >>> averaged_network("riemannian", {"cond_dim": 8, "dim": 16, "depth": 1}).tangent
    True
    """
    own = {key: value for key, value in config.items() if key != "tangent"}
    return TimeAveraged(paths.by_name(method), **own)


# The network, averaged over the steps of a solver

OPTIONS = samplers.SolverOptions(steps=64, solver="ab3")
"""How samples and likelihoods of published models are solved if the caller does not say."""
AVERAGED = 32  # times in an interval


class TimeAveraged(VelocityTransformer):
    """A published network, its conditioning averaged over an interval of time around t.

    The time embedding of the published networks turns by up to 1000 t radians. What training left
    of its fast waves is noise. A solver of few steps meets each wave at a few arbitrary phases, and
    then errs by more than the waves matter; what counts is their average over a step. Averaging the
    conditioning costs nothing, since it is computed per image and not per point. An interval is as
    long as a step of `OPTIONS` is there, so that the intervals around its times cover every moment
    once. `plain` gives the network without averaging.

    >>> net = TimeAveraged(paths.RiemannianFlow(), cond_dim=8, dim=16, depth=1)
    >>> low, high = net.interval(torch.tensor([[0.5]]))
    >>> bool(low < 0.5 < high)
    True

    Args:
        path: whose clock places the steps.
        config: arguments of `VelocityTransformer`.
    """

    step_times: Tensor

    def __init__(self, path, **config):
        super().__init__(**config, tangent=path.tangent)
        start, end = path.clock(torch.tensor([0.0, 1.0], dtype=torch.float64))
        s = schedules.few_steps(torch.arange(1025, dtype=torch.float64) / 1024)
        times = path.time(start + (end - start) * s).float()
        self.register_buffer("step_times", times, persistent=False)

    def condition(self, t: Tensor, cond: Tensor | None, more: Tensor | float = 0.0) -> Tensor:
        """The mean over the interval around t of what `VelocityTransformer.condition` returns."""
        low, high = self.interval(t)
        offsets = (torch.arange(AVERAGED, dtype=t.dtype, device=t.device) + 0.5) / AVERAGED
        moments = low[..., None] + (high - low)[..., None] * offsets  # (B or 1, N or 1, times)
        more = more[..., None, :] if isinstance(more, Tensor) else more  # constant in time
        return super().condition(moments, cond, more).mean(-2)

    def interval(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Half a step before t, and half a step after it."""
        times = self.step_times.to(t)
        last = len(times) - 1
        i = torch.searchsorted(times, t.contiguous()).clamp(1, last)
        place = i - (times[i] - t) / (times[i] - times[i - 1])  # t = times[place], interpolated
        half = last / OPTIONS.steps / 2
        ends = []
        for end in ((place - half).clamp(0, last), (place + half).clamp(0, last)):
            j = end.floor().long().clamp(max=last - 1)
            ends.append(torch.lerp(times[j], times[j + 1], end - j))
        return ends[0], ends[1]


def plain(net: VelocityTransformer, tangent: bool | None = None) -> VelocityTransformer:
    """The same weights without averaging; with `tangent=False` as a plain function on R³."""
    view = copy.copy(net)
    view.__class__ = VelocityTransformer
    view.tangent = net.tangent if tangent is None else tangent
    return view


# The official sampler and "likelihood", for comparison


@torch.no_grad()
def trajectory(
    net: VelocityTransformer,
    path,
    noise: Tensor,
    times: Tensor,
    cond: Tensor | None = None,
    guidance: float = 0.0,
) -> Iterator[Tensor]:
    """States of the official samplers, step for step (`solver="plonk"`).

    Riemannian: x ← (x + Δt ψ)/|x + Δt ψ| with the network's unprojected output; officially `noise`
    is normal, unnormalised. Flow: x ← x + Δt ψ. Diffusion: DDIM from t = 10⁻⁹, whose predicted data
    are clamped to the cube [−1, 1]³ and the noise made to fit.

    >>> net = averaged_network("flow", {"cond_dim": 8, "dim": 16, "depth": 1})
    >>> times = schedules.time_grid(schedules.by_name(SCHEDULE), 4)
    >>> len(list(trajectory(net, paths.EuclideanFlow(), torch.randn(1, 5, 3), times)))
    5

    Args:
        net: a published network.
        path, noise, cond, guidance: as for `samplers.trajectory` and `samplers.guided`.
        times: (steps + 1,) from 0 to 1; officially 251, by the skewed sigmoid.
    """
    field = samplers.guided(plain(net, tangent=False), guidance)
    x = noise
    yield x
    for t, t_next in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        if path.name == "diffusion":
            t = max(t, 1e-9)
            predicted = field(x, t, cond)
            data = ((x - (1 - t) ** 0.5 * predicted) / t**0.5).clamp(-1, 1)
            predicted = (x - t**0.5 * data) / (1 - t) ** 0.5
            x = t_next**0.5 * data + (1 - t_next) ** 0.5 * predicted
        else:
            x = x + (t_next - t) * field(x, t, cond)
            x = sphere.unit(x) if path.tangent else x
        yield x


class _Ambient(paths.EuclideanFlow):
    """R³ with the constant "noise density" 1/4π."""

    def noise_log_prob(self, x: Tensor) -> Tensor:
        return torch.full_like(x[..., 0], sphere.LOG_UNIFORM)


def ambient_trace_log_prob(
    net: VelocityTransformer, x: Tensor, cond: Tensor | None = None, guidance: float = 0.0
) -> Tensor:
    """The official code's log-likelihood of a Riemannian flow. **It is not the samples' density.**

    The network is taken as a field on R³, neither normalised nor projected, and solved back from x
    by dopri5 without staying on the sphere. The trace of its ambient Jacobian is integrated; log
    1/4π is the value at the end. On S² this integrates to another number than 1, which depends on
    the network. `Geolocator.log_prob` is the density.

    >>> net = averaged_network("riemannian", {"cond_dim": 8, "dim": 16, "depth": 1})
    >>> ambient_trace_log_prob(net, sphere.uniform((1, 5))).shape
    torch.Size([1, 5])

    Args:
        net: a published network.
        x: (B, N, 3) unit vectors.

    Returns:
        (B, N) nats. The official unit divides by 3 log 2.
    """
    field = samplers.guided(plain(net, tangent=False), guidance)
    times = schedules.time_grid(schedules.linear, 1)
    return likelihood.log_prob(field, _Ambient(), x, times, cond, "dopri5")
