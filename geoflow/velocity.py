"""The velocity network ψ(x, t, c): a DiT-like transformer on location tokens.

The tokens are N points on the sphere, the condition one embedding per image:

    location (B, N, 3) → Linear → blocks → adaptive LayerNorm → Linear → (B, N, 3)
    block:  h + σ · MLP((1 + γ) · LayerNorm(h) + μ),      (γ, μ, σ) = Linear(SiLU(c + time))

With one condition vector per image and independent points there is nothing to attend to, so a block has no attention: this is
PLONK's network exactly (architecture: supplement, figure B), and its published weights fit. What depends on the image and
the time alone is computed once per image, not once per point.

On S² the answer must be tangent at x. `tangent=True` normalises x inside and projects the output, so that the network is a
vector field on the sphere whatever its weights, constant along rays, and its divergence is well defined.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from geoflow import sphere

AVERAGED = 32  # times in a window of `TimeAveraged`
SIDES = (
    (1, 1, 1, 1),
    (1, -1, 1, -1),
    (1, 1, -1, -1),
    (1, -1, -1, 1),
)  # of four principal components, step by step: a Hadamard matrix


class TimeEmbedding(nn.Module):
    """cos and sin of 1000 t fᵢ with fᵢ = 10⁻⁴^(2i/(d/4)), standardised over channels, then a two-layer MLP. t (...) → (..., d)."""

    frequencies: Tensor

    def __init__(self, dim: int, scale: float = 1000.0):
        super().__init__()
        count = dim // 8
        self.register_buffer(
            "frequencies",
            scale * (1e-4) ** (2 * torch.arange(count) / (dim // 4)),
            persistent=False,
        )
        self.mlp = nn.Sequential(nn.Linear(2 * count, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        phase = t[..., None] * self.frequencies
        waves = torch.cat([phase.cos(), phase.sin()], dim=-1)
        waves = (waves - waves.mean(-1, keepdim=True)) / waves.std(-1, keepdim=True)
        return self.mlp(waves)


# A stack (1 + k, B, N, d) holds a value and its derivatives along k directions: forward-mode differentiation in one pass, in which
# a linear layer is one matrix product for all of them. With k = 0 these are the layers themselves.


def _linear(layer: nn.Linear, stack: Tensor) -> Tensor:
    if len(stack) == 1:
        return layer(stack)
    out = nn.functional.linear(stack, layer.weight)
    out[0] += layer.bias
    return out


def normalize(stack: Tensor) -> Tensor:
    """LayerNorm without affine: y = (h − mean h) / s, dy = (dh − mean dh − y mean(y dh)) / s."""
    value, rates = stack[:1], stack[1:]
    if not len(rates):
        return nn.functional.layer_norm(value, value.shape[-1:])
    y, _, inverse = torch.native_layer_norm(value, value.shape[-1:], None, None, 1e-5)
    rates = rates - rates.mean(-1, keepdim=True)
    rates -= y * (y * rates).mean(-1, keepdim=True)
    return torch.cat([y, rates.mul_(inverse)])


def _gelu(stack: Tensor) -> Tensor:
    if len(stack) == 1:
        return nn.functional.gelu(stack)
    value = stack[0]
    slope = torch.ops.aten.gelu_backward(torch.ones_like(value), value)
    return torch.cat([nn.functional.gelu(value)[None], stack[1:] * slope])


def modulate(stack: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    out = (1 + scale) * stack
    return out + shift if len(out) == 1 else torch.cat([out[:1] + shift, out[1:]])


class Block(nn.Module):
    """LayerNorm without affine → scale and shift → MLP → gate → skip, modulated by the conditioning (B, 1 or N, d)."""

    def __init__(self, dim: int, expansion: int):
        super().__init__()
        self.modulation = nn.Linear(dim, 3 * dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, expansion * dim), nn.GELU(), nn.Linear(expansion * dim, dim)
        )
        nn.init.zeros_(self.modulation.weight)  # every block starts as the identity
        nn.init.zeros_(self.modulation.bias)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        """h (B, N, d) → (B, N, d)."""
        return self.push(h[None], c)[0]

    def push(self, stack: Tensor, c: Tensor) -> Tensor:
        """The same for a value with its derivatives, (1 + k, B, N, d)."""
        scale, shift, gate = self.modulation(c).chunk(3, dim=-1)
        inner, _, outer = self.mlp
        return stack + gate * _linear(
            outer, _gelu(_linear(inner, modulate(normalize(stack), scale, shift)))
        )  # ty: ignore[invalid-argument-type]


class VelocityTransformer(nn.Module):
    """PLONK's network, for N points per image.

    Args:
        cond_dim: C, width of the embedding; 0 for an unconditional network.
        dim: d, width of the tokens; a multiple of 8.
        depth: number of blocks.
        expansion: width of a block's MLP in units of d.
        fourier: number of random Fourier features of x added to the input; 0 is the paper's network. They let a small network
            draw fine detail (Tancik et al., 2020).
        fourier_scale: standard deviation of their frequencies, radians⁻¹.
        time_scale: largest frequency of the time embedding; 1000 is the paper's.
        tangent: project to the tangent plane, for S²; False leaves the output in R³.
    """

    frequencies: Tensor

    def __init__(
        self,
        cond_dim: int,
        dim: int = 512,
        depth: int = 12,
        expansion: int = 4,
        fourier: int = 0,
        fourier_scale: float = 4.0,
        time_scale: float = 1000.0,
        tangent: bool = True,
    ):
        super().__init__()
        if dim < 16 or dim % 8:
            raise ValueError(f"dim={dim}; expected a multiple of 8, at least 16")
        self.config = dict(
            cond_dim=cond_dim,
            dim=dim,
            depth=depth,
            expansion=expansion,
            fourier=fourier,
            fourier_scale=fourier_scale,
            time_scale=time_scale,
            tangent=tangent,
        )
        self.tangent = tangent
        self.register_buffer(
            "frequencies", fourier_scale * torch.randn(3, fourier), persistent=fourier > 0
        )
        self.embed_location = nn.Linear(3 + 2 * fourier, dim)
        self.embed_time = TimeEmbedding(dim, time_scale)
        self.embed_cond = nn.Linear(cond_dim, dim) if cond_dim else None
        self.blocks = nn.ModuleList(Block(dim, expansion) for _ in range(depth))
        self.modulation = nn.Linear(dim, 2 * dim)
        self.head = nn.Linear(dim, 3)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, t, cond: Tensor | None = None) -> Tensor:
        """Velocity at x.

        Args:
            x: (B, N, 3).
            t: scalar, (B,) or (B, N); times in [0, 1].
            cond: (B, C), or None for the null condition, a zero embedding.

        Returns:
            (B, N, 3), tangent at x if `tangent`.

        Raises:
            ValueError: shapes that do not fit.
        """
        return self.jvp(x, t, cond, x.new_zeros(0, *x.shape))[0]

    def jvp(
        self,
        x: Tensor,
        t,
        cond: Tensor | None,
        directions: Tensor,
        window: float = 0.0,
        sides: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Velocity and its derivatives along directions in x: the same as torch.func.jvp, in one pass.

        Args:
            x, t, cond: as in `forward`.
            directions: (k, B, N, 3).
            window: width of the interval around t over which the conditioning is averaged, see `TimeAveraged`.
            sides: (r,) signs: on which side of that mean, along the r largest principal components, to stand; None: on the mean.

        Returns:
            (B, N, 3) and (k, B, N, 3).
        """
        self._check(x, cond)
        if self.tangent:
            length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
            x = x / length
            directions = sphere.to_tangent(x, directions) / length
        c = self._condition(x, t, cond, window, sides)  # (B or 1, N or 1, d)
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 coordinates are 12 km coarse
            sin, cos = (x @ self.frequencies).sin(), (x @ self.frequencies).cos()
            rates = directions @ self.frequencies
            stack = torch.cat(
                [
                    torch.cat([x, sin, cos], -1)[None],
                    torch.cat([directions, cos * rates, -sin * rates], -1),
                ]
            )
            stack = _linear(self.embed_location, stack)  # (1 + k, B, N, d)
        for block in self.blocks:
            stack = block.push(stack, c)  # ty: ignore[not-callable]
        scale, shift = self.modulation(c).chunk(2, dim=-1)
        stack = modulate(normalize(stack), scale, shift)
        with torch.autocast(x.device.type, enabled=False):
            stack = _linear(self.head, stack.to(x.dtype))  # (1 + k, B, N, 3)
            v, rates = stack[0], stack[1:]
            if self.tangent:
                radial = (x * v).sum(-1, keepdim=True)
                rates = (
                    sphere.to_tangent(x, rates)
                    - (directions * v).sum(-1, keepdim=True) * x
                    - radial * directions
                )
                v = v - radial * x
            return v, rates

    def _condition(
        self, x: Tensor, t, cond: Tensor | None, window: float, sides: Tensor | None = None
    ) -> Tensor:
        t = torch.as_tensor(t, dtype=x.dtype, device=x.device)
        t = t.reshape(t.shape + (1,) * (3 - t.ndim))  # (B or 1, N or 1, 1)
        if window:
            offsets = (
                torch.arange(AVERAGED, dtype=x.dtype, device=x.device) + 0.5
            ) / AVERAGED - 0.5
            t = (t + window * offsets).clamp(0, 1)
        c = self.embed_time(t)  # (B or 1, N or 1, times, d)
        if self.embed_cond is not None:  # the null condition is a zero embedding
            c = c + (self.embed_cond.bias if cond is None else self.embed_cond(cond)[:, None, None])
        c = nn.functional.silu(c)
        mean = c.mean(-2)
        return mean if sides is None else mean + _deviation(c - mean[..., None, :], sides)

    def _check(self, x: Tensor, cond: Tensor | None) -> None:
        if x.ndim != 3 or x.shape[-1] != 3:
            raise ValueError(f"points have shape {tuple(x.shape)}; expected (B, N, 3)")
        width = self.config["cond_dim"]
        if cond is not None and (
            cond.ndim != 2 or cond.shape[0] not in (1, len(x)) or cond.shape[1] != width
        ):
            raise ValueError(
                f"cond has shape {tuple(cond.shape)}; expected ({len(x)}, {width}): one embedding per image"
            )


def _deviation(c: Tensor, sides: Tensor) -> Tensor:
    """Σ_j sides_j √λ_j u_j over the largest principal components of n centred rows, λ_j being their variances: (..., n, d) → (..., d)."""
    gram = (
        c @ c.mT
    )  # one n × n matrix per image: where the images are, since thousands take a CPU a second
    if gram.device.type == "mps":  # has neither eigh nor float64
        gram = gram.cpu()
    rows = torch.linalg.eigh(gram.double()).eigenvectors[..., -len(sides) :]
    rows = (
        rows * rows.gather(-2, rows.abs().argmax(-2, keepdim=True)).sign()
    )  # one of two signs, the same everywhere
    return (rows.to(c) * sides.to(c)).sum(-1)[..., None, :].matmul(c)[..., 0, :] / math.sqrt(
        c.shape[-2]
    )


@dataclass
class TimeAveraged:
    """A network for steps that are longer than its waves in time: its conditioning is averaged around each time of a solver.

    The time embedding of the published networks turns up to 1000 t radians, and what training left of its fast waves is no part of the
    answer, but few steps meet these waves at random phases: then solvers converge as slowly as a sum of random numbers. Their mean is
    what counts over a step, and a mean of the conditioning costs nothing, since it is computed per image, not per point. A window is
    as wide as the time's weight in the solver's rule, so that the windows together cover every moment once: by Simpson's rule (RK4) a
    third of a step around its ends and two thirds around its middle, by Adams–Bashforth a whole step around its ends. On a trained
    network of that kind, with steps placed by `schedules.few_steps`, 8 steps of RK4 then err by 6 km and 16 by 2 km, where the official
    250 Euler steps err by 10 km.

    The mean loses what the network's curvature in its conditioning c makes of these waves, ½ Σ_j λ_j ∂²v/∂u_j² with the principal
    components u_j of c in the window and their variances λ_j: some thousandths of a nat in a likelihood. So RK4's two looks at
    the middle of a step can stand on opposite sides of the mean, c̄ ± Σ_j ±√λ_j u_j. What is odd in the deviation cancels, what is
    even has the right size, and products of two components cancel over four steps, in which the inner signs change. It costs nothing.
    (Sigma points: Julier & Uhlmann, 1997.) On a trained network of the published size 44 steps are then right to 0.0005 nats, else to
    some 0.003.

    Attributes:
        network: a VelocityTransformer.
        times: (steps + 1,) from 0 to 1: the solver's.
        ends: share of a step that the windows around its ends have; the one around its middle has the rest.
        sides: whether the middle is looked at from both sides of the mean.
    """

    network: VelocityTransformer
    times: Tensor
    ends: float
    sides: bool = False
    _last: float = field(default=math.nan, init=False)  # the time that was asked about before

    @property
    def tangent(self) -> bool:
        return self.network.tangent

    def __call__(self, x: Tensor, t, cond: Tensor | None = None) -> Tensor:
        return self.jvp(x, t, cond, x.new_zeros(0, *x.shape))[0]

    def jvp(self, x: Tensor, t, cond: Tensor | None, directions: Tensor) -> tuple[Tensor, Tensor]:
        """As `VelocityTransformer.jvp`, for one time."""
        times, moment, sides = self.times.double(), float(t), None
        again, self._last = moment == self._last, moment
        nearest = int((times - moment).abs().argmin())
        if abs(float(times[nearest]) - moment) < 1e-6:
            around = times[max(nearest - 1, 0) : nearest + 2]
            window = float(around[-1] - around[0]) / (len(around) - 1) * self.ends
        else:
            step = int(torch.searchsorted(times, moment))
            window = float(times[step] - times[step - 1]) * (1 - self.ends)
            if self.sides:
                sides = torch.tensor(SIDES[step % len(SIDES)]) * (-1 if again else 1)
        return self.network.jvp(x, t, cond, directions, window, sides)


FAST = 100.0  # radians; our recipes' time embeddings turn by 20, the published ones by 1,000
STEPS_PER_WAVE = 4  # of fast waves; with one, steps still meet them at random phases: 170 plain ones of RK4 err more than 64 averaged


def time_averaged(network, times: Tensor, multistep: bool = False, sides: bool = False):
    """The network itself where the mean step resolves the fastest wave of its time embedding, else `TimeAveraged` for RK4's kind of
    steps, or for those of a solver that looks at their ends alone; `sides` is for RK4's."""
    turns = network.config["time_scale"] if isinstance(network, VelocityTransformer) else 0.0
    resolved = (len(times) - 1) * 2 * math.pi >= turns * (STEPS_PER_WAVE if turns > FAST else 1)
    return network if resolved else TimeAveraged(network, times, 1.0 if multistep else 1 / 3, sides)
