"""The velocity network ψ(x, t, c): a DiT-like transformer on location tokens.

The tokens are N points on the sphere, the condition is one embedding per image:

    location (B, N, 3) → Linear → blocks → adaptive LayerNorm → Linear → (B, N, 3)
    block:  h + σ · MLP((1 + γ) · LayerNorm(h) + μ),      (γ, μ, σ) = Linear(SiLU(c + time))

With one condition vector per image and independent points there is nothing to attend to, so a block
has no attention. This is PLONK's network (supplement, figure B), and its published weights fit.
Whatever depends on the image and the time alone is computed once per image, not once per point.
"""

import contextlib
from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, normalize, silu

from geoflow import paths, schedules, sphere
from geoflow.runtime import number

LOG_WIDTHS = (-12.0, 2.0)  # logarithms of the widths that a guess may have: 6e-6 to 7 radians


def placed(constant: Tensor) -> Tensor:
    """A constant of the CPU on the device of new modules.

    Models are described on the device "meta" before they are loaded. Arithmetic there would import
    torch's compiler, which takes longer than all the rest.
    """
    return constant.to(torch.get_default_device())


class TimeEmbedding(nn.Module):
    """Times (...) → vectors (..., d), by waves and a two-layer MLP.

    The waves are cos and sin of s t fᵢ, fᵢ = 10^(−32 i/d), i < d/8, standardised over channels.

    >>> TimeEmbedding(16)(torch.tensor([0.1, 0.9])).shape
    torch.Size([2, 16])

    Args:
        dim: d, a multiple of 8.
        scale: s, the largest frequency in radians per unit of time; the paper's is 1000.
    """

    frequencies: Tensor

    def __init__(self, dim: int, scale: float = 1000.0):
        super().__init__()
        count = dim // 8
        exponents = 2 * torch.arange(count, device="cpu") / (dim // 4)
        self.register_buffer("frequencies", placed(scale * (1e-4) ** exponents), persistent=False)
        self.mlp = nn.Sequential(nn.Linear(2 * count, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        phase = t[..., None] * self.frequencies
        waves = torch.cat([phase.cos(), phase.sin()], dim=-1)
        waves = (waves - waves.mean(-1, keepdim=True)) / waves.std(-1, keepdim=True)
        return self.mlp(waves)


def modulate(h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Adaptive LayerNorm: (1 + scale) · LayerNorm(h) + shift, without learnt gain and bias."""
    return (1 + scale) * layer_norm(h, h.shape[-1:]) + shift


@contextlib.contextmanager
def in_float32(device: str, products: str = "highest") -> Generator[None]:
    """Float32, whatever the precision around it; with products="high" a GPU multiplies in TF32.

    Coordinates need the highest: their last bit is 25 km in bfloat16 and 3 km in TF32.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(products)
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that begins as zero, so that a block begins as the identity."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def conditioner(cond_dim: int, hidden: int, dim: int) -> nn.Module:
    """Embeddings (B, C) → (B, d): linear as in the paper, or with a hidden layer of that width."""
    if not hidden:
        return nn.Linear(cond_dim, dim)
    return nn.Sequential(nn.Linear(cond_dim, hidden), nn.GELU(), nn.Linear(hidden, dim))


class Block(nn.Module):
    """LayerNorm → scale and shift → MLP → gate → skip, each modulated by the condition.

    >>> Block(16, 4)(torch.randn(2, 5, 16), torch.randn(2, 1, 16)).shape
    torch.Size([2, 5, 16])

    Args:
        dim: d, width of the tokens.
        expansion: width of the MLP in units of d.
    """

    def __init__(self, dim: int, expansion: int):
        super().__init__()
        self.modulation = zero_linear(dim, 3 * dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, expansion * dim), nn.GELU(), nn.Linear(expansion * dim, dim)
        )

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        """Tokens h (B, N, d) and condition c (B or 1, N or 1, d) → tokens (B, N, d)."""
        scale, shift, gate = self.modulation(c).chunk(3, dim=-1)
        return h + gate * self.mlp(modulate(h, scale, shift))


class VelocityTransformer(nn.Module):
    """PLONK's network, for N points per image.

    >>> network = VelocityTransformer(cond_dim=8, dim=32, depth=2)
    >>> network(sphere.uniform((4, 10)), 0.5, torch.randn(4, 8)).shape  # 4 images, 10 points each
    torch.Size([4, 10, 3])

    Args:
        cond_dim: C, width of the embedding; 0 for an unconditional network.
        dim: d, width of the tokens; a multiple of 8.
        depth: number of blocks.
        expansion: width of a block's MLP in units of d.
        cond_hidden: width of a hidden layer of the `conditioner`; 0 is the paper's linear map.
        fourier: number of random Fourier features of x added to the input, which let a small
            network draw fine detail (Tancik et al., 2020); 0 is the paper's network.
        fourier_scale: standard deviation of their frequencies, radians⁻¹.
        octaves: with K > 0 the frequencies are spread evenly over K octaves, 1 to 2^K radians⁻¹, in
            place of `fourier_scale`, and a wave cos ω·x of frequency f = |ω| is multiplied by
            exp(−(f (1 − t))²/2), its mean over x + (1 − t) ξ with ξ ~ N(0, I): it says nothing
            until the noise of time t, of about this size on S² too, is finer than the wave (Barron
            et al., 2021, who average over the volume that a pixel sees).
        time_scale: largest frequency of the time embedding; the paper's is 1000.
        clock: ε; the time that is embedded is `schedules.log_clock(t, ε)`; 0 embeds t itself, as
            the paper does.
        guess: name of the path whose target the head computes from a Gaussian guess of the true
            place; empty for the paper's head, which answers with the target itself.
        tangent: whether the output is projected to the tangent plane at x, for S²; False leaves it
            in R³.
    """

    frequencies: Tensor

    def __init__(
        self,
        cond_dim: int,
        dim: int = 512,
        depth: int = 12,
        expansion: int = 4,
        cond_hidden: int = 0,
        fourier: int = 0,
        fourier_scale: float = 4.0,
        octaves: float = 0.0,
        time_scale: float = 1000.0,
        clock: float = 0.0,
        guess: str = "",
        tangent: bool = True,
    ):
        super().__init__()
        if dim < 16 or dim % 8:
            raise ValueError(f"dim={dim}; expected a multiple of 8, at least 16")
        size = dict(cond_dim=cond_dim, dim=dim, depth=depth, expansion=expansion)
        waves = dict(fourier=fourier, fourier_scale=fourier_scale, time_scale=time_scale)
        extras = dict(cond_hidden=cond_hidden, clock=clock, guess=guess, octaves=octaves)
        extras = {name: value for name, value in extras.items() if value}
        self.config: dict[str, Any] = {**size, **waves, **extras, "tangent": tangent}
        self.tangent, self.clock = tangent, number(f"clock={clock!r}", clock)
        self.path = paths.by_name(guess) if guess else None
        if self.path is not None and self.path.tangent is not tangent:
            raise ValueError(f"tangent={tangent} with guess={guess!r}; expected {not tangent}")
        self.octaves = number(f"octaves={octaves!r}", octaves)
        if octaves < 0 or (octaves and not fourier):
            raise ValueError(f"octaves={octaves!r} with fourier={fourier}; expected waves, K ≥ 0")
        frequencies = torch.randn(3, fourier, device="cpu")
        if octaves:
            spread = 2 ** torch.linspace(0, octaves, fourier, device="cpu")
            frequencies, fourier_scale = normalize(frequencies, dim=0) * spread, 1.0
        frequencies = placed(fourier_scale * frequencies)
        self.register_buffer("frequencies", frequencies, persistent=fourier > 0)
        self.embed_location = nn.Linear(3 + 2 * fourier, dim)
        self.embed_time = TimeEmbedding(dim, time_scale)
        self.embed_cond = conditioner(cond_dim, cond_hidden, dim) if cond_dim else None
        self.blocks = nn.ModuleList(Block(dim, expansion) for _ in range(depth))
        self.modulation = zero_linear(dim, 2 * dim)
        self.head = nn.Linear(dim, 7 if guess else 3)

    def forward(self, x: Tensor, t, cond: Tensor | None = None) -> Tensor:
        """Velocity at x.

        Args:
            x: (B, N, 3).
            t: scalar, (B,) or (B, N); times in [0, 1].
            cond: (B, C), or None for the null condition, a zero embedding.

        Returns:
            (B, N, 3), tangent at x if `tangent`.

        Raises:
            ValueError: shapes of x or cond that do not fit.
        """
        self.check(x, cond)
        t = self.times_for(x, t)
        return self.velocity(x, t, self.condition(t, cond))

    def velocity(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        """Velocity at x (B, N, 3) at times t for what `condition` returned.

        On S², x is normalised first and the output projected last: the network is a vector field on
        the sphere whatever its weights, constant along rays, and has a well-defined divergence.
        """
        if self.tangent:
            x = sphere.unit(x)
        with in_float32(x.device.type):
            waves, kept = x @ self.frequencies, self.damping(t)
            waves = torch.cat([kept * waves.sin(), kept * waves.cos()], dim=-1)
            h = self.embed_location(torch.cat([x, waves], dim=-1))  # (B, N, d)
        for block in self.blocks:
            h = block(h, c)
        h = modulate(h, *self.modulation(c).chunk(2, dim=-1))
        with in_float32(x.device.type):
            v = self.answer(x, t, self.head(h.to(x.dtype)))  # (B, N, 3)
            return sphere.to_tangent(x, v) if self.tangent else v

    def damping(self, t: Tensor) -> Tensor | float:
        """Factors of the waves at times t (B or 1, N or 1): (B or 1, N or 1, F), see `octaves`."""
        if not self.octaves:
            return 1.0
        noise = self.frequencies.square().sum(0) * (1 - t[..., None]).square()
        return (-noise / 2).exp()

    def answer(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """What the head's output y stands for, before the projection: (B, N, 3 or 7) → (B, N, 3).

        With a guess, y = (a, m, log s), and the answer is a plus the path's target at x if the true
        place were distributed as N(m, s² I), see `expected_target` in `geoflow.paths`. Near the
        data a target is steep in x and t, which the formula draws and the network need not.
        """
        if self.path is None:
            return y
        a, mean, log_width = y.split([3, 3, 1], -1)
        width = log_width.clamp(*LOG_WIDTHS).exp()
        return a + self.path.expected_target(x, t[..., None], mean, width)

    def condition(self, t: Tensor, cond: Tensor | None, more: Tensor | float = 0.0) -> Tensor:
        """SiLU(c + time + more), for all modulations: t (B or 1, …), cond (B, C) → (B, …, d)."""
        c = self.embed_time(schedules.log_clock(t, self.clock) if self.clock else t)
        if self.embed_cond is not None:
            if cond is None:
                cond = t.new_zeros(1, self.config["cond_dim"])
            e = self.embed_cond(cond)
            c = c + e.reshape(-1, *[1] * (t.ndim - 1), e.shape[-1])
        return silu(c + more)

    def times_for(self, x: Tensor, t) -> Tensor:
        """Times as (B or 1, N or 1), on the device and with the precision of x (B, N, 3)."""
        if x.is_cuda and not (isinstance(t, Tensor) and (t.ndim or t.is_cuda)):
            t = x.new_full((), float(t))  # a copy would make the GPU wait
        t = torch.as_tensor(t, dtype=x.dtype, device=x.device)
        return t.reshape(t.shape + (1,) * (2 - t.ndim))

    def check(self, x: Tensor, cond: Tensor | None) -> None:
        """Refuse points that are not (B, N, 3), and other than one embedding per image."""
        if x.ndim != 3 or x.shape[-1] != 3:
            raise ValueError(f"points have shape {tuple(x.shape)}; expected (B, N, 3)")
        width, have = self.config["cond_dim"], () if cond is None else tuple(cond.shape)
        if cond is not None and have not in ((len(x), width), (1, width)):
            expected = f"({len(x)}, {width}): one embedding per image"
            raise ValueError(f"cond has shape {have}; expected {expected}")
