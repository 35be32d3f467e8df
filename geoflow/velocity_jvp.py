"""Velocities with their directional derivatives, for the divergence: layer by layer.

`jvp` computes what `torch.func.jvp` computes. For the networks of this package it carries a stack
(1 + k, B, N, d), the value and its derivatives along k directions, through the layers by hand. The
value is computed once for all directions, and a linear layer is one matrix product for the whole
stack. Likelihoods take half the time or less (`tests/benchmarks/speed.py` prints the ratio), and
nothing else needs this file.
"""

import functools

import torch
from torch import Tensor, nn

from geoflow import sphere
from geoflow.paths import DiffusionVelocity
from geoflow.samplers import Guided
from geoflow.velocity import Block, VelocityTransformer, in_float32

_FORWARD = VelocityTransformer.forward, VelocityTransformer.velocity


@functools.singledispatch
def jvp(velocity, x: Tensor, t, cond: Tensor | None, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Velocity, and its derivatives along directions in x.

    >>> x, spin = sphere.uniform((1, 2)), torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 0]])
    >>> v, rates = jvp(lambda x, t, cond: x @ spin.T, x, 0.0, None, torch.ones(1, 1, 2, 3))
    >>> rates[0, 0, 0]  # for a linear field the derivative is spin · direction
    tensor([-1.,  1.,  0.])

    Args:
        velocity: (x (B, N, 3), t, cond) → (B, N, 3). Networks of this package, guided ones too, are
            differentiated layer by layer, any other callable by `torch.func.jvp`.
        x, t, cond: arguments of the velocity.
        directions: (k, B, N, 3).

    Returns:
        (B, N, 3) and (k, B, N, 3).
    """
    x = x.contiguous()  # forward-mode derivatives cannot write into a tensor expanded over images

    def along(direction: Tensor):
        return torch.func.jvp(lambda y: velocity(y, t, cond), (x,), (direction,))

    return torch.func.vmap(along, out_dims=(None, 0))(directions)  # ty: ignore[invalid-argument-type]


@jvp.register
def _(velocity: Guided, x, t, cond, directions):
    if cond is None:
        return jvp(velocity.velocity, x, t, None, directions)
    twice = torch.cat([directions, directions], dim=1)
    v, rates = jvp(velocity.velocity, *velocity.both(x, t, cond), twice)
    return velocity.combine(v), velocity.combine(rates.transpose(0, 1)).transpose(0, 1)


@jvp.register
def _(velocity: DiffusionVelocity, x, t, cond, directions):
    noise, rates = jvp(velocity.network, x, t, cond, directions)
    return velocity.combine(x, t, noise), velocity.combine(directions, t, rates)


@jvp.register
def _(velocity: VelocityTransformer, x, t, cond, directions):
    if (type(velocity).forward, type(velocity).velocity) != _FORWARD:  # a subclass of other layers
        return jvp.dispatch(object)(velocity, x, t, cond, directions)
    velocity.check(x, cond)
    x, t = x.contiguous(), velocity.times_for(x, t)
    return network_jvp(velocity, x, t, velocity.condition(t, cond), directions)


def network_jvp(network: VelocityTransformer, x: Tensor, t: Tensor, c: Tensor, directions: Tensor):
    """`VelocityTransformer.velocity` with its derivatives: (B, N, 3) and (k, B, N, 3)."""
    if network.tangent:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        x = x / length
        directions = sphere.to_tangent(x, directions) / length
    with in_float32(x.device.type):
        waves, rates = x @ network.frequencies, directions @ network.frequencies
        kept = network.damping(t)
        sin, cos = kept * waves.sin(), kept * waves.cos()
        value = torch.cat([x, sin, cos], -1)[None]
        stack = torch.cat([value, torch.cat([directions, cos * rates, -sin * rates], -1)])
        stack = _linear(network.embed_location, stack)  # (1 + k, B, N, d)
    for block in network.blocks:
        stack = _block(block, stack, c)  # ty: ignore[invalid-argument-type]
    stack = _modulate(stack, *network.modulation(c).chunk(2, dim=-1))
    with in_float32(x.device.type):
        stack = _linear(network.head, stack.to(x.dtype))  # (1 + k, B, N, 3 or 7)
        v, rates = stack[0], stack[1:]
        if network.path is not None:
            v, rates = _answer(network, x, t, v, directions, rates)
        if not network.tangent:
            return v, rates
        radial = (x * v).sum(-1, keepdim=True)  # the product rule for v − ⟨x, v⟩ x
        turned = (directions * v).sum(-1, keepdim=True) * x + radial * directions
        return v - radial * x, sphere.to_tangent(x, rates) - turned


def _answer(network: VelocityTransformer, x: Tensor, t: Tensor, y: Tensor, directions, rates):
    """`VelocityTransformer.answer` of a guess, along directions in x and rates of y."""

    def along(direction: Tensor, rate: Tensor):
        return torch.func.jvp(lambda x, y: network.answer(x, t, y), (x, y), (direction, rate))

    return torch.func.vmap(along, out_dims=(None, 0))(directions, rates)  # ty: ignore[invalid-argument-type]


def _block(block: Block, stack: Tensor, c: Tensor) -> Tensor:
    scale, shift, gate = block.modulation(c).chunk(3, dim=-1)
    inner, _, outer = block.mlp
    h = _gelu(_linear(inner, _modulate(stack, scale, shift)))  # ty: ignore[invalid-argument-type]
    return stack + gate * _linear(outer, h)  # ty: ignore[invalid-argument-type]


def _linear(layer: nn.Linear, stack: Tensor) -> Tensor:
    out = nn.functional.linear(stack, layer.weight)
    out[0] += layer.bias
    return out


def _modulate(stack: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """y = (h − mean h) / s, dy = (dh − mean dh − y mean(y dh)) / s, then scale and shift."""
    y, _, inverse = torch.native_layer_norm(stack[:1], stack.shape[-1:], None, None, 1e-5)
    rates = stack[1:] - stack[1:].mean(-1, keepdim=True)
    rates -= y * (y * rates).mean(-1, keepdim=True)
    return torch.cat([(1 + scale) * y + shift, (1 + scale) * rates.mul_(inverse)])


def _gelu(stack: Tensor) -> Tensor:
    value = stack[0]
    slope = torch.ops.aten.gelu_backward(torch.ones_like(value), value)
    return torch.cat([nn.functional.gelu(value)[None], stack[1:] * slope])
