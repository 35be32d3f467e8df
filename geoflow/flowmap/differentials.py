"""The differential of exp on S²: how the end of a jump moves with the jump."""

import math

import torch
from torch import Tensor


def exp_differential(x: Tensor, w: Tensor, h: Tensor) -> Tensor:
    """(d exp_x)_w h: the velocity of exp_x(w) when w moves with velocity h in the tangent plane.

    With θ = |w| and e = w/θ it is ⟨h, e⟩ (cos θ e − sin θ x) + (sin θ/θ) (h − ⟨h, e⟩ e): along the
    geodesic lengths stay, across it they shrink. `sphere.exp_differential_inverse` inverts it.

    >>> x, w = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, math.pi / 2, 0.0])
    >>> exp_differential(x, w, w).round(decimals=4)  # a longer way around the Earth
    tensor([-1.5708, -0.0000,  0.0000])

    Args:
        x: (..., 3) unit vectors.
        w, h: (..., 3) tangent at x.

    Returns:
        (..., 3) tangent at exp_x(w).
    """
    n = torch.linalg.vector_norm(w, dim=-1, keepdim=True)
    e = w / torch.where(n == 0, 1.0, n)
    along = (e * h).sum(-1, keepdim=True)
    across = torch.sinc(n / math.pi) * (h - along * e)
    return along * (torch.cos(n) * e - torch.sin(n) * x) + across
