"""The Riemannian path: its target is its derivative, its noise is never antipodal."""

import math

import official
import pytest
import torch
from small import around, points
from torch.func import jvp

from geoflow import paths, samplers, sphere

PATH = paths.by_name("riemannian")


def test_target_is_the_derivative_of_the_path():
    x0, x1 = points(20, 5), points(20, 5, seed=1)
    t = torch.rand(20, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    at = PATH.sample(x0, x1, t)
    x_t, derivative = jvp(lambda s: PATH.sample(x0, x1, s).x_t, (t,), (torch.ones_like(t),))
    assert torch.equal(at.x_t, x_t)
    assert torch.allclose(at.target, derivative, rtol=0, atol=2e-14)
    assert (at.x_t * at.target).sum(-1).abs().max() < 1e-14


def test_path_starts_at_noise_and_ends_at_data():
    x0, x1 = points(50), points(50, seed=1)
    assert torch.allclose(PATH.sample(x0, x1, torch.zeros(50)).x_t, x0, atol=1e-14)
    assert torch.allclose(PATH.sample(x0, x1, torch.ones(50)).x_t, x1, atol=1e-14)


def test_path_agrees_with_the_official_code():
    expected = official.tensors("losses")
    x0, x1 = (sphere.project(expected[name].double()) for name in ("x_base_sphere", "x_0"))
    at = PATH.sample(x0, x1, expected["gamma_f64"])
    clear = sphere.distance(x0, x1) < math.pi - 0.02  # its arccos is clamped near the antipode
    assert clear.sum() > 40
    assert torch.allclose(
        at.x_t[clear], expected["riemannian_y"][clear].double(), rtol=0, atol=1e-6
    )
    assert torch.allclose(
        at.target[clear], expected["riemannian_u_t_f64"][clear], rtol=0, atol=1e-6
    )


def test_noise_near_the_antipode_changes_sides(generator):
    x1 = sphere.uniform(6, generator)
    first = sphere.uniform(6, generator)
    first[2] = -x1[2]
    first[4] = sphere.exp(-x1[4], 0.9 * paths.ANTIPODE_MARGIN * sphere.tangent_basis(x1[4])[0])

    class Stub(paths.RiemannianFlow):
        def noise(self, shape, generator=None):
            return first.clone()

    x0 = Stub().noise_like(x1, generator)
    assert torch.equal(x0[[0, 1, 3, 5]], first[[0, 1, 3, 5]])
    assert torch.equal(x0[[2, 4]], -first[[2, 4]])
    assert (sphere.distance(x0, -x1) >= paths.ANTIPODE_MARGIN).all()
    sphere.log(x0, x1)


def test_noise_just_outside_the_margin_is_kept(generator):
    x1 = sphere.uniform(4, generator)
    outside = sphere.exp(-x1, 1.1 * paths.ANTIPODE_MARGIN * sphere.tangent_basis(x1)[0])

    class Stub(paths.RiemannianFlow):
        def noise(self, shape, generator=None):
            return outside.clone()

    assert torch.equal(Stub().noise_like(x1), outside)


def test_noise_for_data_is_uniform_around_it():
    """Archimedes: the cosine of the angle to the data is uniform, but for the margin at the antipode."""
    n = 100_000
    x1 = sphere.from_latlon(torch.tensor([40.0, -70.0], dtype=torch.float64)).expand(n, 3)
    x0 = PATH.noise_like(x1, torch.Generator().manual_seed(5))
    assert x0.dtype == torch.float64
    cosine = (x0 * x1).sum(-1).sort().values
    assert (
        cosine - torch.linspace(-1, 1, n, dtype=torch.float64)
    ).abs().max() < 2 * 1.63 / math.sqrt(n)  # Kolmogorov, 1 %
    east, north = sphere.tangent_basis(x1)
    around = torch.stack([(x0 * east).sum(-1), (x0 * north).sum(-1)], -1)
    assert around.mean(0).abs().max() < 4 / math.sqrt(3 * n)
    assert (sphere.distance(x0, -x1) >= paths.ANTIPODE_MARGIN).all()


@pytest.mark.parametrize("name", paths.PATHS)
def test_noise_for_data_is_seeded_and_has_its_shape(name):
    path, x1 = paths.by_name(name), points(3, 4).float()
    first, again, other = (
        path.noise_like(x1, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)
    )
    assert first.shape == x1.shape
    assert first.dtype == torch.float32
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_noise_log_prob_integrates_to_one(generator):
    log_p = PATH.noise_log_prob(PATH.noise((7, 5), generator))
    assert log_p.shape == (7, 5)
    assert torch.allclose(log_p.exp() * 4 * math.pi, torch.ones(7, 5))


@pytest.mark.parametrize("name", paths.PATHS)
def test_charts_are_inverse_to_each_other(name):
    """exp undoes log, and exp_differential_inverse the derivative of exp."""
    path, x, y = paths.by_name(name), points(50), points(50, seed=1)
    u = path.log(x, y)
    assert torch.allclose(path.exp(x, u), y, rtol=0, atol=1e-13)
    w = sphere.to_tangent(x, points(50, seed=2)) if path.tangent else points(50, seed=2)
    _, moved = jvp(lambda s: path.exp(x, s), (u,), (w,))
    assert torch.allclose(path.exp_differential_inverse(x, u, moved), w, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", paths.PATHS)
def test_frames_are_orthonormal(name):
    path, x = paths.by_name(name), points(2, 20)
    frame = path.frame(x)
    gram = torch.einsum("i...c,j...c->...ij", frame, frame)
    assert torch.allclose(
        gram, torch.eye(len(frame), dtype=x.dtype).expand_as(gram), rtol=0, atol=1e-14
    )
    assert len(frame) == (2 if path.tangent else 3)


@pytest.mark.parametrize("name", paths.PATHS)
def test_clock_and_time_are_inverse_to_each_other(name):
    path, t = paths.by_name(name), torch.linspace(0.001, 1, 50, dtype=torch.float64)
    assert torch.allclose(path.time(path.clock(t)), t, rtol=0, atol=1e-14)
    assert (path.clock(t).diff() > 0).all()


@pytest.mark.parametrize("name", ["flow", "diffusion"])
def test_expected_target_is_the_regression_on_the_point(name):
    """Point and target are jointly Gaussian, so that E[target | x] is the line of least squares."""
    path, mean, width = paths.by_name(name), torch.tensor([0.5, -0.3, 0.8]).double(), 0.3
    x0, noise = torch.randn(2, 400_000, 3, generator=torch.Generator().manual_seed(0)).double()
    for t in torch.tensor([0.05, 0.5, 0.9, 0.99]).double():
        at = path.sample(x0, mean + width * noise, t.expand(len(x0)))
        x, target = at.x_t[:, 0], at.target[:, 0]
        slope = torch.cov(torch.stack([x, target]))[0, 1] / x.var()
        line = target.mean() + slope * (at.x_t[:3] - at.x_t.mean(0))[:, :1]
        expected = path.expected_target(at.x_t[:3], t[None, None], mean, torch.tensor(width))
        assert torch.allclose(expected[:, :1], line, rtol=0, atol=0.01)


@pytest.mark.parametrize("width", [0.3, 0.01, 1e-4])
@pytest.mark.parametrize("name", ["flow", "diffusion"])
def test_expected_target_carries_noise_to_its_distribution(name, width):
    path, mean = paths.by_name(name), torch.tensor([0.5, -0.3, 0.8]).double()
    t, width = torch.tensor(0.4).double(), torch.tensor(width).double()
    x = points(20) * 2
    velocity = path.velocity(lambda x, t, cond: path.expected_target(x, t, mean, width))
    ratio = (t.sqrt(), (1 - t).sqrt()) if name == "diffusion" else (t, 1 - t)
    deviation = ((ratio[0] * width) ** 2 + ratio[1] ** 2).sqrt()
    standard = (x - ratio[0] * mean) / deviation  # a normal draw keeps its number on the way

    def state(s):
        a, b = (s.sin(), s.cos()) if name == "diffusion" else (s, 1 - s)
        return a * mean + ((a * width) ** 2 + b**2).sqrt() * standard

    _, along = jvp(state, (path.clock(t).double(),), (torch.ones_like(t),))
    assert torch.allclose(velocity(x, t, None), along, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("width", [0.02, 0.002])
def test_expected_target_on_the_sphere_narrows_to_its_width(width):
    """From 0.02 before the end, where states are N(mean, width² + 0.02²) on the tangent plane."""
    left, mean = 0.02, points(1)
    x = around(mean, sphere.EARTH_RADIUS_KM * (width**2 + left**2) ** 0.5, 20_000)

    def velocity(x, t, cond):
        v = PATH.expected_target(x, torch.as_tensor(t).double(), mean[:, None], torch.tensor(width))
        return sphere.to_tangent(x, v)

    times = 1 - left * torch.linspace(1, 0, 33).double()
    *_, end = samplers.trajectory(velocity, PATH, x, times, None, "rk4")
    spread = sphere.log(mean[:, None], end).square().sum(-1).mean().div(2).sqrt()
    assert float(spread) == pytest.approx(width, rel=0.03)


def test_unknown_method():
    with pytest.raises(ValueError, match="unknown method 'riemanian' .did you mean 'riemannian'"):
        paths.by_name("riemanian")
