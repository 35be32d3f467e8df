"""Geometry of the unit sphere S²: coordinates, exp and log, geodesics, distances, random points.

Points are unit vectors ``x`` of shape (..., 3). Tangent vectors at x are 3-vectors orthogonal to x.
Every function broadcasts over leading dimensions and is accurate in float32 from one metre to the
antipode (`exp_differential_inverse` only to 3 rad).
"""

import math

import torch
from torch import Tensor

EARTH_RADIUS_KM = 6371.0
EARTH_AREA_KM2 = 4 * math.pi * EARTH_RADIUS_KM**2
LOG_UNIFORM = -math.log(4 * math.pi)


# Coordinates


def from_latlon(latlon) -> Tensor:
    """Unit vectors of places given as latitude and longitude in degrees.

    x = (cos φ cos λ, cos φ sin λ, sin φ). Longitudes from −360 to 360 are accepted and wrapped.

    >>> from_latlon(torch.tensor([[0.0, 90.0], [-90.0, 0.0]]))
    tensor([[ 0.,  1.,  0.],
            [ 0.,  0., -1.]])

    Args:
        latlon: (..., 2) degrees.

    Raises:
        ValueError: wrong last dimension, NaN, a latitude beyond ±90 or a longitude beyond ±360.
    """
    try:
        latlon = torch.as_tensor(latlon)
    except (TypeError, ValueError, RuntimeError) as error:
        text = "latlon holds no numbers, or rows of unequal length"
        raise ValueError(f"{text} ({error}); expected (..., 2): degrees") from error
    if latlon.is_complex():
        raise ValueError("latlon holds complex numbers; expected (..., 2): degrees")
    if latlon.dtype not in (torch.float32, torch.float64):  # half precision errs by kilometres
        latlon = latlon.to(torch.get_default_dtype())
    if latlon.ndim == 0 or latlon.shape[-1] != 2:
        raise ValueError(f"latlon has shape {tuple(latlon.shape)}; expected (..., 2): degrees")
    for column, name, limit in ((0, "latitude", 90.0), (1, "longitude", 360.0)):
        value = latlon[..., column]
        bad = ~(value.abs() <= limit)  # also catches NaN
        if bad.any():
            text = f"{name} {value[bad][0].item()} is not in [{-limit:g}, {limit:g}] degrees"
            raise ValueError(text)
    lat, lon = latlon.unbind(-1)
    lon = torch.where(lon.abs() > 180, lon - 360 * lon.sign(), lon)
    x, y = _cos_deg(lat) * _cos_deg(lon), _cos_deg(lat) * _sin_deg(lon)
    return torch.stack([x, y, _sin_deg(lat)], dim=-1)


def to_latlon(x: Tensor) -> Tensor:
    """Latitude in [−90, 90] and longitude in [−180, 180), degrees: the inverse of `from_latlon`.

    φ = atan2(z, √(x² + y²)), λ = atan2(y, x), for vectors of any length. At the poles this is
    accurate where arcsin(z) is not. The longitude of a pole is 0.

    >>> to_latlon(torch.tensor([0.0, 2.0, 0.0]))
    tensor([ 0., 90.])

    Raises:
        ValueError: wrong last dimension, NaN or a zero vector.
    """
    _check_points(x)
    lat = torch.rad2deg(torch.atan2(x[..., 2], torch.linalg.vector_norm(x[..., :2], dim=-1)))
    # + 0.0 turns −0 into 0: a pole has longitude 0
    lon = torch.rad2deg(torch.atan2(x[..., 1] + 0.0, x[..., 0] + 0.0))
    return torch.stack([lat, torch.where(lon >= 180, lon - 360, lon)], dim=-1)


def _sin_deg(degrees: Tensor) -> Tensor:
    """Sine of an angle in [−180, 180] degrees, reduced before the conversion: exactly 0 at ±180."""
    folded = torch.where(degrees.abs() > 90, 180 * degrees.sign() - degrees, degrees)
    return torch.sin(torch.deg2rad(folded))


def _cos_deg(degrees: Tensor) -> Tensor:
    """Cosine of an angle in [−180, 180] degrees, exactly 0 at ±90."""
    return torch.sin(torch.deg2rad(90 - degrees.abs()))


# Points and tangent vectors


def unit(x: Tensor) -> Tensor:
    """x / |x|, unchecked: for inner loops, where x is known to be away from 0.

    >>> unit(torch.tensor([0.0, 3.0, 4.0]))
    tensor([0.0000, 0.6000, 0.8000])
    """
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)


def project(x: Tensor) -> Tensor:
    """Nearest point on the sphere, x / |x|.

    >>> project(torch.tensor([0.0, 3.0, 4.0]))
    tensor([0.0000, 0.6000, 0.8000])

    Raises:
        ValueError: wrong last dimension, NaN, or a zero vector, whose projection is undefined.
    """
    _check_points(x)
    return unit(x)


def _check_points(x: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"points of type {type(x).__name__}; expected a tensor (..., 3)")
    if x.ndim == 0 or x.shape[-1] != 3:
        raise ValueError(f"points have shape {tuple(x.shape)}; expected (..., 3)")
    norm = torch.linalg.vector_norm(x.detach(), dim=-1)
    if not bool(((norm > 0) & norm.isfinite()).all()):
        bad = x[~((norm > 0) & norm.isfinite())][0].tolist()
        text = f"point {bad} has no direction on the sphere"
        raise ValueError(f"{text}; expected a finite, non-zero vector")


def to_tangent(x: Tensor, v: Tensor) -> Tensor:
    """Orthogonal projection of v onto the tangent plane at x: v − ⟨x, v⟩ x.

    >>> to_tangent(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([5.0, 1.0, 2.0]))
    tensor([0., 1., 2.])
    """
    return v - (x * v).sum(-1, keepdim=True) * x


def tangent_basis(x: Tensor) -> Tensor:
    """Two orthonormal tangent vectors at each x, smooth except at z = 0.

    Duff et al., 2017, *Building an orthonormal basis, revisited*: (..., 3) → (2, ..., 3).

    >>> tangent_basis(torch.tensor([0.0, 0.0, 1.0]))
    tensor([[1., -0., -0.],
            [-0., 1., -0.]])
    """
    a, b, c = x.unbind(-1)
    sign = torch.where(c >= 0, 1.0, -1.0).to(x)
    p = -1 / (sign + c)
    q = a * b * p
    first = torch.stack([1 + sign * a * a * p, sign * q, -sign * a], dim=-1)
    second = torch.stack([q, sign + b * b * p, -b], dim=-1)
    return torch.stack([first, second])


def exp(x: Tensor, v: Tensor) -> Tensor:
    """Exponential map: where the geodesic leaving x with velocity v arrives after unit time.

    exp_x(v) = cos|v| x + sin|v|/|v| v, renormalised (PLONK, section 3.2).

    >>> x, v = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, math.pi / 2, 0.0])
    >>> exp(x, v).round(decimals=6)  # a quarter of the way around the Earth
    tensor([-0., 1., 0.])

    Args:
        x: (..., 3) unit vectors.
        v: (..., 3) tangent vectors at x, radians.
    """
    n = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
    return unit(x * torch.cos(n) + v * torch.sinc(n / math.pi))


def log(x: Tensor, y: Tensor) -> Tensor:
    """Logarithm: the shortest tangent vector v at x with exp_x(v) = y; inverts `exp` for |v| < π.

    v = u atan2(|u|, ⟨x, y⟩)/|u| with u = y − ⟨x, y⟩ x (PLONK, section 3.2, in a form that loses no
    digits near 0 and π).

    >>> x, y = from_latlon(torch.tensor([[48.9, 2.4], [35.7, 139.7]]))  # Paris, Tokyo
    >>> EARTH_RADIUS_KM * log(x, y).norm()
    tensor(9705.4072)

    Args:
        x, y: (..., 3) unit vectors.

    Returns:
        (..., 3) tangent vectors at x, radians.

    Raises:
        ValueError: y is the antipode of x, to half a unit in the last place; there every direction
            is a shortest one.
    """
    u, s, c = _towards(x, y)
    antipodal = (s <= torch.finfo(s.dtype).eps / 2) & (c < 0)
    if bool(antipodal.any()):
        at = torch.broadcast_to(x, u.shape)[antipodal[..., 0]][0].tolist()
        text = f"log is undefined between {at} and its antipode"
        raise ValueError(f"{text}: every direction is a shortest one")
    return _scaled(u, s, c)


def log_unchecked(x: Tensor, y: Tensor) -> Tensor:
    """`log` for inner loops, where y is known not to be the antipode of x; there it is 0."""
    return _scaled(*_towards(x, y))


def _towards(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A tangent vector at x towards y; its length, the sine of the angle; and the cosine."""
    c = (x * y).sum(-1, keepdim=True)
    # exact for y near ±x, where y − ⟨x, y⟩ x would cancel
    w = y - torch.where(c < 0, -1.0, 1.0).to(y) * x
    u = to_tangent(x, w)
    return u, torch.linalg.vector_norm(u, dim=-1, keepdim=True), c


def _scaled(u: Tensor, s: Tensor, c: Tensor) -> Tensor:
    same = s == 0
    return u * torch.where(same, 1.0, torch.atan2(s, c) / torch.where(same, 1.0, s))


def exp_differential_inverse(x: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """(d exp_x)_u⁻¹ v: the velocity of u in the tangent plane when exp_x(u) moves with velocity v.

    exp_x keeps lengths along u and shrinks them by sin|u|/|u| across, so the inverse keeps the
    component along the geodesic and stretches the other by |u|/sin|u|. The chart ends at |u| = π;
    beyond 3 rad the stretch stays constant.

    Args:
        x: (..., 3) unit vectors.
        u: (..., 3) tangent at x.
        v: (..., 3) tangent at exp_x(u).

    Returns:
        (..., 3) tangent at x.
    """
    n = torch.linalg.vector_norm(u, dim=-1, keepdim=True)
    e = u / torch.where(n == 0, 1.0, n)
    radial = (x * v).sum(-1, keepdim=True)
    along = (e * v).sum(-1, keepdim=True)
    stretch = 1 / torch.sinc(n.clamp(max=3.0) / math.pi)
    speed = along * torch.cos(n) - radial * torch.sin(n)
    return stretch * (v - radial * x - along * e) + speed * e


# Geodesics and distances


def _expand_time(t, x: Tensor) -> Tensor:
    """Times aligned with the leading dimensions of x, with a last dimension of one."""
    t = torch.as_tensor(t, dtype=x.dtype, device=x.device)
    return t.reshape(t.shape + (1,) * max(x.ndim - t.ndim, 1))


def geodesic(x0: Tensor, x1: Tensor, t) -> Tensor:
    """Point at time t on the shortest path from x0 (t = 0) to x1 (t = 1): exp_{x0}(t log_{x0} x1).

    >>> x0, x1 = from_latlon(torch.tensor([[0.0, 10.0], [0.0, 50.0]]))
    >>> to_latlon(geodesic(x0, x1, 0.25)).round()
    tensor([ 0., 20.])

    Args:
        x0, x1: (..., 3) unit vectors.
        t: a number, or times that align with the leading dimensions of x0.

    Raises:
        ValueError: x1 is the antipode of x0.
    """
    return exp(x0, _expand_time(t, x0) * log(x0, x1))


def geodesic_velocity(x0: Tensor, x1: Tensor, t) -> Tensor:
    """d/dt of `geodesic`; its length is the distance from x0 to x1 at every t.

    This is the target of Riemannian flow matching (PLONK, 3.3; Chen & Lipman, 2024, equation 14).

    >>> x0, x1 = from_latlon(torch.tensor([[0.0, 0.0], [0.0, 90.0]]))
    >>> geodesic_velocity(x0, x1, 0.3).norm()  # a quarter turn in unit time
    tensor(1.5708)

    Raises:
        ValueError: x1 is the antipode of x0.
    """
    return velocity_along(x0, log(x0, x1), t)


def velocity_along(x: Tensor, v: Tensor, t) -> Tensor:
    """d/dt exp_x(t v): the tangent vector cos(t|v|) v − |v| sin(t|v|) x at exp_x(t v)."""
    theta = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
    phase = _expand_time(t, x) * theta
    return torch.cos(phase) * v - theta * torch.sin(phase) * x


def distance(x: Tensor, y: Tensor) -> Tensor:
    """Great-circle distance in radians: 2 atan2(|x − y|, |x + y|).

    Unlike arccos⟨x, y⟩ it is exact at 0 and π and has finite gradients there.

    >>> x = torch.tensor([1.0, 0.0, 0.0])
    >>> distance(x, -x)
    tensor(3.1416)
    """
    apart, together = (torch.linalg.vector_norm(v, dim=-1) for v in (x - y, x + y))
    return 2 * torch.atan2(apart, together)


def distance_km(x: Tensor, y: Tensor) -> Tensor:
    """Great-circle distance on a sphere of radius 6371 km.

    >>> paris, tokyo = from_latlon(torch.tensor([[48.9, 2.4], [35.7, 139.7]]))
    >>> distance_km(paris, tokyo)
    tensor(9705.4072)
    """
    return EARTH_RADIUS_KM * distance(x, y)


# Random points and grids


def uniform(n, generator: torch.Generator | None = None) -> Tensor:
    """Uniform random points.

    They are drawn on the generator's device, the CPU without one.

    >>> uniform(3, torch.Generator().manual_seed(0)).norm(dim=-1).round(decimals=5)
    tensor([1., 1., 1.])

    Args:
        n: a number, or a shape.
        generator: source of randomness; None is torch's global one.
    """
    return unit(random_vectors(n, generator))


def random_vectors(n, generator: torch.Generator | None = None, draw=torch.randn) -> Tensor:
    """Vectors of independent numbers, normal ones by default: (*n, 3) float32; see `uniform`."""
    shape = (n,) if isinstance(n, int) else tuple(n)
    device = "cpu" if generator is None else generator.device
    return draw(*shape, 3, generator=generator, device=device, dtype=torch.float32)


def fibonacci_grid(n: int) -> Tensor:
    """n points of nearly equal distances and areas: (n, 3) float32.

    zᵢ = 1 − (2i + 1)/n, longitudes by the golden angle.

    >>> fibonacci_grid(1000).shape
    torch.Size([1000, 3])
    """
    if n < 1:
        raise ValueError(f"a grid of {n} points; expected at least 1")
    i = torch.arange(n, dtype=torch.float64, device="cpu")
    z = 1 - (2 * i + 1) / n
    lon = math.pi * (3 - math.sqrt(5)) * i
    r = torch.sqrt(1 - z * z)
    return torch.stack([r * torch.cos(lon), r * torch.sin(lon), z], dim=-1).float()
