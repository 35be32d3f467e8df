"""Geometry of the sphere: laws in float64, accuracy in float32 in metres, honest errors."""

import math

import official
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import jvp, vmap

from geoflow import sphere

METRES = sphere.EARTH_RADIUS_KM * 1000


def points(n, seed=0):
    return sphere.project(
        torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    )


def tangents(x, seed=1):
    """Random unit tangent vectors."""
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
    return sphere.unit(sphere.to_tangent(x, v))


def pairs_at(angle, n=2000):
    """Float64 pairs of points at an exact distance."""
    x = points(n)
    return x, math.cos(angle) * x + math.sin(angle) * tangents(x)


# Laws


def test_exp_undoes_log():
    x, y = points(1000), points(1000, 2)
    assert torch.allclose(sphere.exp(x, sphere.log(x, y)), y, rtol=0, atol=1e-14)


@pytest.mark.parametrize("length", [1e-9, 1e-3, 1.0, 3.0, math.pi - 1e-5])
def test_log_undoes_exp(length):
    x = points(1000)
    v = length * tangents(x)
    # the direction is known to ε/(distance to the antipode)
    assert torch.allclose(
        sphere.log(x, sphere.exp(x, v)), v, rtol=0, atol=1e-14 + 3e-15 / (math.pi - length)
    )


def test_log_is_tangent_and_as_long_as_the_distance():
    x, y = points(1000), points(1000, 2)
    v = sphere.log(x, y)
    assert (x * v).sum(-1).abs().max() < 1e-15
    assert torch.allclose(
        torch.linalg.vector_norm(v, dim=-1), sphere.distance(x, y), rtol=0, atol=1e-14
    )


def test_geodesic_joins_its_ends_at_constant_speed():
    x, y = points(500), points(500, 2)
    assert torch.allclose(sphere.geodesic(x, y, 0.0), x, rtol=0, atol=1e-15)
    assert torch.allclose(sphere.geodesic(x, y, 1.0), y, rtol=0, atol=1e-14)
    t = torch.rand(500, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    at = sphere.geodesic(x, y, t)
    assert torch.allclose(sphere.distance(x, at), t * sphere.distance(x, y), rtol=0, atol=1e-14)
    assert torch.allclose(sphere.geodesic(y, x, 1 - t), at, rtol=0, atol=1e-14)


def test_geodesic_velocity_is_the_derivative_of_the_geodesic():
    x, y = points(500), points(500, 2)
    for t in torch.linspace(0, 1, 7, dtype=torch.float64):
        at, derivative = jvp(lambda s: sphere.geodesic(x, y, s), (t,), (torch.ones_like(t),))
        velocity = sphere.geodesic_velocity(x, y, t)
        assert torch.allclose(velocity, derivative, rtol=0, atol=2e-14)
        assert (at * velocity).sum(-1).abs().max() < 1e-14
        assert torch.allclose(
            torch.linalg.vector_norm(velocity, dim=-1), sphere.distance(x, y), rtol=0, atol=1e-14
        )


def test_times_align_with_leading_dimensions():
    x, y = points(12).reshape(3, 4, 3), points(12, 2).reshape(3, 4, 3)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    for function in (sphere.geodesic, sphere.geodesic_velocity):
        assert torch.equal(
            function(x, y, t), torch.stack([function(x[i], y[i], t[i]) for i in range(3)])
        )
        assert torch.equal(function(x, y, t), function(x, y, t[:, None].expand(3, 4)))


def test_distance_is_a_metric_and_agrees_with_arccos():
    x, y, z = points(1000), points(1000, 2), points(1000, 3)
    assert torch.equal(sphere.distance(x, y), sphere.distance(y, x))
    assert (sphere.distance(x, z) <= sphere.distance(x, y) + sphere.distance(y, z) + 1e-15).all()
    assert torch.allclose(sphere.distance(x, y), torch.arccos((x * y).sum(-1)), rtol=0, atol=1e-12)
    assert (sphere.distance(x, x) == 0).all()
    assert torch.allclose(
        sphere.distance(x, -x),
        torch.full((1000,), math.pi, dtype=torch.float64),
        rtol=0,
        atol=1e-15,
    )


def test_distance_in_kilometres_of_known_places():
    paris, sydney = sphere.from_latlon(
        torch.tensor([[48.8566, 2.3522], [-33.8688, 151.2093]], dtype=torch.float64)
    )
    assert float(sphere.distance_km(paris, sydney)) == pytest.approx(
        16959.7, abs=1
    )  # spherical law of cosines, by hand
    equator = sphere.from_latlon(torch.tensor([[0.0, 0.0], [0.0, 90.0]], dtype=torch.float64))
    assert float(sphere.distance_km(*equator)) == pytest.approx(6371 * math.pi / 2, rel=1e-15)


@pytest.mark.parametrize("length", [0.0, 1e-8, 0.5, 2.0, 2.99])
def test_exp_differential_inverse_undoes_the_derivative_of_exp(length):
    x = points(300)
    u, w = (
        length * tangents(x),
        tangents(x, 2) * torch.linspace(0.1, 3, 300, dtype=torch.float64)[:, None],
    )
    _, v = jvp(lambda s: sphere.exp(x, s), (u,), (w,))
    stretch = 1 if length == 0 else length / math.sin(length)
    assert torch.allclose(sphere.exp_differential_inverse(x, u, v), w, rtol=0, atol=1e-14 * stretch)


def test_tangent_basis_is_orthonormal_and_tangent():
    axes = torch.eye(3, dtype=torch.float64)
    x = torch.cat(
        [
            points(1000),
            axes,
            -axes,
            torch.tensor([[1.0, 0.0, -0.0], [0.6, 0.8, 1e-300]], dtype=torch.float64),
        ]
    )
    frame = torch.cat([sphere.tangent_basis(x), x[None]]).transpose(0, 1)  # (n, 3, 3)
    assert torch.allclose(frame @ frame.mT, axes.expand(len(x), 3, 3), rtol=0, atol=1e-15)


def test_to_tangent_is_an_orthogonal_projection():
    x, v = points(100), 5 * points(100, 4)
    w = sphere.to_tangent(x, v)
    assert (x * w).sum(-1).abs().max() < 1e-14
    assert torch.allclose(torch.linalg.cross(x, v - w), torch.zeros_like(x), atol=1e-14)


# Float32, from one metre to the antipode


@pytest.mark.parametrize("metres", [1, 10, 1e3, 1e5, 5e6, 1e7, 1.9e7, 2.0e7, 2.0014e7, 2.0015e7])
def test_float32_distance_is_right_to_two_metres(metres):
    x, y = pairs_at(metres / METRES)
    error = sphere.distance_km(x.float(), y.float()).double() * 1000 - metres
    assert error.abs().max() < 2


def test_float32_distances_of_nearly_equal_and_nearly_antipodal_points():
    """Where the official code, with a clamped arccos, errs by kilometres."""
    pairs = official.tensors("edge")
    error = sphere.distance(pairs["geo_a"], pairs["geo_b"]).double() - pairs["geo_dist"].double()
    assert error.abs().max() * METRES < 2
    assert (pairs["geo_logmap_norm"] - pairs["geo_dist"]).abs().max() * METRES > 2000


@pytest.mark.parametrize("angle", [0.0, 1e-7, 1e-4, 0.1, 1.5, 3.0, math.pi - 1e-3, math.pi - 1e-5])
def test_float32_exp_undoes_log_to_five_metres(angle):
    x, y = (p.float() for p in pairs_at(angle))
    back = sphere.exp(x, sphere.log(x, y)).double()
    assert (
        float(sphere.distance(back, y.double()).max()) * METRES < 5
    )  # a unit in the last place of π is 1.5 m


@pytest.mark.parametrize("angle", [1e-6, 1e-3, 1.0, math.pi - 1e-3, math.pi - 1e-5])
def test_float32_log_agrees_with_float64(angle):
    x, y = (p.float() for p in pairs_at(angle))
    truth = sphere.log(sphere.project(x.double()), sphere.project(y.double()))
    # two roundings of 6e-8 of the points turn the direction by 6e-8 / sin θ, which counts θ times
    assert (sphere.log(x, y) - truth).abs().max() < 4e-7 + 2e-7 * angle / math.sin(angle)


@pytest.mark.parametrize("offset", [0.0, 1e-7, math.pi - 1e-5, math.pi - 1e-3, 1.0])
def test_float32_gradients_are_finite(offset):
    x, y = (p.float().requires_grad_() for p in pairs_at(offset, n=200))
    (
        sphere.distance(x, y).sum() + sphere.log(x, y).sum() + sphere.exp(x, sphere.log(x, y)).sum()
    ).backward()
    assert x.grad.isfinite().all()
    assert y.grad.isfinite().all()


def test_gradients_at_coincident_and_antipodal_points():
    x = points(50).float()
    for y in (x, -x):
        end = y.clone().requires_grad_()
        sphere.distance(x, end).sum().backward()
        assert end.grad.isfinite().all()
    v = torch.zeros_like(x, requires_grad=True)
    sphere.exp(x, v).sum().backward()
    assert v.grad.isfinite().all()


def test_derivatives_of_exp_and_log_at_coincident_points_are_the_tangent_projection():
    x = points(50)
    plane = torch.eye(3, dtype=torch.float64) - x[:, :, None] * x[:, None]
    of_exp = vmap(torch.func.jacrev(sphere.exp, argnums=1))(x, torch.zeros_like(x))
    assert torch.allclose(of_exp, plane, rtol=0, atol=1e-14)
    of_log = torch.stack(
        [torch.autograd.functional.jacobian(lambda y, p=p: sphere.log(p, y), p) for p in x]
    )
    assert torch.allclose(of_log, plane, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_antipode_has_no_log(dtype):
    x = points(200).to(dtype)
    y = points(200, 2).to(dtype)
    for i in range(0, 200, 20):
        one_bad = y.clone()
        one_bad[i] = -x[i]
        for function in (
            sphere.log,
            lambda a, b: sphere.geodesic(a, b, 0.5),
            lambda a, b: sphere.geodesic_velocity(a, b, 0.5),
        ):
            with pytest.raises(ValueError, match="antipode"):
                function(x, one_bad)


# Latitude and longitude


@pytest.mark.parametrize(
    ("latlon", "xyz"),
    [
        ((0, 0), (1, 0, 0)), ((0, 90), (0, 1, 0)), ((0, -90), (0, -1, 0)), ((90, 0), (0, 0, 1)), ((90, 123), (0, 0, 1)), ((-90, -7), (0, 0, -1)),
        ((0, 180), (-1, 0, 0)), ((0, -180), (-1, 0, 0)), ((0, 270), (0, -1, 0)), ((0, 360), (1, 0, 0)), ((0, -270), (0, 1, 0)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_from_latlon_of_the_axes_is_exact(latlon, xyz, dtype):
    x = sphere.from_latlon(torch.tensor(latlon, dtype=dtype))
    assert x.tolist() == list(xyz)


@pytest.mark.parametrize(
    ("latlon", "expected"),
    [
        ((0, 180), (0, -180)),
        ((0, -180), (0, -180)),
        ((90, 50), (90, 0)),
        ((-90, 180), (-90, 0)),
        ((45, 360), (45, 0)),
        ((10, -190), (10, 170)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_edges_of_the_map_have_one_name(latlon, expected, dtype):
    back = sphere.to_latlon(sphere.from_latlon(torch.tensor(latlon, dtype=dtype)))
    assert torch.allclose(
        back,
        torch.tensor(expected, dtype=dtype),
        rtol=0,
        atol=1e-5 if dtype == torch.float32 else 1e-13,
    )
    assert -180 <= back[1] < 180


@settings(deadline=None)
@given(lat=st.floats(-90, 90), lon=st.floats(-180, 180, exclude_max=True))
def test_latlon_round_trip(lat, lon):
    x = sphere.from_latlon(torch.tensor([lat, lon], dtype=torch.float64))
    assert float(torch.linalg.vector_norm(x)) == pytest.approx(1, abs=4e-16)
    back = sphere.to_latlon(x)
    assert float(back[0]) == pytest.approx(lat, abs=3e-14)
    assert -180 <= back[1] < 180
    turn = (float(back[1]) - lon + 180) % 360 - 180
    assert abs(turn) * math.cos(math.radians(lat)) < 1e-13 or abs(lat) > 90 - 1e-9


def test_coordinates_agree_with_the_official_code():
    expected = official.tensors("geo")
    x = sphere.from_latlon(torch.rad2deg(expected["gps_rad"].double()))
    assert torch.allclose(x, expected["cartesian"].double(), rtol=0, atol=1e-6)
    assert torch.allclose(
        sphere.to_latlon(expected["cartesian"]),
        torch.rad2deg(expected["back_rad"]),
        rtol=0,
        atol=1e-4,
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_places_in_half_precision_are_computed_in_single(dtype):
    latlon = torch.tensor([[48.9, 2.4], [-33.9, 151.2]], dtype=dtype)
    x = sphere.from_latlon(latlon)
    assert x.dtype == torch.float32
    assert torch.equal(x, sphere.from_latlon(latlon.float()))


def test_latlon_round_trip_in_float32_is_right_to_three_metres_everywhere():
    x = torch.cat([points(5000), sphere.unit(torch.tensor([0.0, 0, 1.0]) + 1e-3 * points(5000, 5))])
    latlon = sphere.to_latlon(x.float())
    assert float(sphere.distance(sphere.from_latlon(latlon).double(), x).max()) * METRES < 3


def test_to_latlon_takes_vectors_of_any_length():
    x = points(10)
    assert torch.allclose(sphere.to_latlon(1e-6 * x), sphere.to_latlon(x), rtol=1e-13)


@pytest.mark.parametrize(
    ("latlon", "message"),
    [
        ((90.5, 0.0), "latitude 90.5 is not in"), ((-91.0, 0.0), "latitude -91.0"), ((math.nan, 0.0), "latitude nan"),
        ((0.0, math.nan), "longitude nan"), ((0.0, 400.0), "longitude 400.0"), ((0.0, -math.inf), "longitude -inf"),
        ((1.0, 2.0, 3.0), r"shape \(3,\)"), (5.0, r"shape \(\)"),
    ],
)  # fmt: skip
def test_places_that_are_not_on_earth(latlon, message):
    with pytest.raises(ValueError, match=message):
        sphere.from_latlon(torch.tensor(latlon))


@pytest.mark.parametrize("function", [sphere.to_latlon, sphere.project])
@pytest.mark.parametrize(
    ("x", "message"),
    [
        ((0.0, 0.0, 0.0), r"\[0.0, 0.0, 0.0\]"),
        ((1.0, math.nan, 0.0), "nan"),
        ((math.inf, 0.0, 0.0), "inf"),
        ((1.0, 0.0), r"shape \(2,\)"),
    ],
)
def test_points_without_a_direction(function, x, message):
    with pytest.raises(ValueError, match=message):
        function(torch.tensor(x))


# Random points and grids


def test_uniform_points_have_the_moments_of_the_sphere(generator):
    n = 200_000
    x = sphere.uniform(n, generator).double()
    assert torch.allclose(
        torch.linalg.vector_norm(x, dim=-1), torch.ones(n, dtype=torch.float64), atol=3e-7
    )
    assert x.mean(0).abs().max() < 4 / math.sqrt(3 * n)
    assert (x.T @ x / n - torch.eye(3) / 3).abs().max() < 4 * math.sqrt(4 / 45 / n)
    z = x[:, 2].sort().values  # Archimedes: z is uniform on [-1, 1]
    assert (z - torch.linspace(-1, 1, n, dtype=torch.float64)).abs().max() < 2 * 1.63 / math.sqrt(
        n
    )  # Kolmogorov, 1 %


def test_uniform_is_seeded_and_takes_shapes():
    def draw(shape, seed):
        return sphere.uniform(shape, torch.Generator().manual_seed(seed))

    assert torch.equal(draw(10, 1), draw(10, 1))
    assert not torch.equal(draw(10, 1), draw(10, 2))
    assert torch.equal(draw((2, 5), 1).reshape(10, 3), draw(10, 1))
    assert draw((), 1).shape == (3,)
    assert draw(0, 1).shape == (0, 3)


def test_uniform_mean_distance_is_a_quarter_turn(generator):
    x, y = sphere.uniform(100_000, generator), sphere.uniform(100_000, generator)
    assert float(sphere.distance_km(x, y).mean()) == pytest.approx(
        10_007.5, abs=4 * 4360 / math.sqrt(100_000)
    )


def test_fibonacci_points_share_the_sphere_equally(generator):
    n = 500
    grid = sphere.fibonacci_grid(n)
    assert grid.double().mean(0).abs().max() < 1e-3
    counts = (
        torch.bincount((sphere.uniform(200_000, generator) @ grid.T).argmax(-1), minlength=n)
        / 200_000
        * n
    )
    assert counts.std() < 0.1  # sampling alone gives 0.05
    near = sphere.distance(grid[:, None], grid[None]).fill_diagonal_(9).min(-1).values
    assert near.min() > 0.8 * math.sqrt(4 * math.pi / n)
    assert sphere.fibonacci_grid(1).shape == (1, 3)
    with pytest.raises(ValueError, match="0 points"):
        sphere.fibonacci_grid(0)
