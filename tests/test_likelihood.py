"""Log-densities: the exact divergence, densities that integrate to one, a flow solved in closed form, the official network."""

import math

import official
import pytest
import torch
from small import network, points

from geoflow import healpix, likelihood, paths, plonk, samplers, sphere

PATH = paths.by_name("riemannian")
POLE = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)


def times(steps):
    return torch.linspace(0, 1, steps + 1, dtype=torch.float64)


def spring(rate=1.0):
    """The gradient of rate · z: everything drifts to the north pole."""

    def velocity(x, t, cond=None):
        return rate * sphere.to_tangent(sphere.unit(x), POLE.to(x).expand_as(x))

    return velocity


def spring_log_prob(x, rate=1.0):
    """Its exact density at t = 1.

    z' = rate (1 − z²), so u = artanh z moves to u + rate at constant longitude, and
    p(z) = dz₀/dz / 4π = cosh²u / cosh²(u − rate) / 4π = 1 / (4π (cosh rate − z sinh rate)²).
    """
    return sphere.LOG_UNIFORM - 2 * torch.log(math.cosh(rate) - x[..., 2] * math.sinh(rate))


def smooth_network():
    """A random network, smooth in time, that turns uniform noise into something uneven."""
    return network(cond_dim=4, time_scale=3.0).double()


# Divergence


def test_divergence_of_the_gradient_of_z():
    x = points(2, 100)
    v, div = likelihood.divergence(spring(), PATH, x, 0.5)
    assert torch.allclose(div, -2 * x[..., 2], rtol=0, atol=1e-12)
    assert torch.allclose(v, sphere.to_tangent(x, POLE.expand_as(x)), rtol=0, atol=1e-15)


def test_divergence_does_not_need_a_tangent_or_normalising_field():
    x = points(1, 100)
    v, div = likelihood.divergence(lambda x, t, c: POLE.expand_as(x), PATH, x, 0.5)
    assert torch.allclose(v, sphere.to_tangent(x, POLE.expand_as(x)), rtol=0, atol=1e-15)
    assert torch.allclose(div, -2 * x[..., 2], rtol=0, atol=1e-12)
    _, div = likelihood.divergence(lambda x, t, c: 3 * x, PATH, x, 0.5)
    assert torch.allclose(div, torch.zeros_like(div), rtol=0, atol=1e-12)


def test_divergence_of_a_rotation_vanishes():
    x, axis = points(2, 100), points(1)[0]
    v, div = likelihood.divergence(
        lambda x, t, c: torch.linalg.cross(axis.expand_as(x), x), PATH, x, 0.5
    )
    assert div.abs().max() < 1e-12
    assert torch.allclose(v, torch.linalg.cross(axis.expand_as(x), x), rtol=0, atol=1e-15)


def test_divergence_of_spherical_harmonic_gradients():
    """Δ of a harmonic of degree l is −l (l + 1) times it: here xy + z(x − y) of degree 2."""
    x = points(1, 100)
    a, b, c = x.unbind(-1)

    def gradient(x, t, cond):
        a, b, c = x.unbind(-1)
        return torch.stack([b + c, a - c, a - b], -1)

    _, div = likelihood.divergence(gradient, PATH, x, 0.0)
    assert torch.allclose(div, -6 * (a * b + c * (a - b)), rtol=0, atol=1e-12)


def test_divergence_of_a_network_agrees_with_finite_differences():
    net, x = smooth_network(), points(3, 20)
    cond, t = (
        torch.randn(3, 4, dtype=torch.float64),
        torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64),
    )
    v, div = likelihood.divergence(net, PATH, x, t, cond)
    h, differences = 1e-5, 0
    for e in sphere.tangent_basis(x):
        step = net(sphere.exp(x, h * e), t, cond) - net(sphere.exp(x, -h * e), t, cond)
        differences = differences + (e * step).sum(-1) / (2 * h)
    assert torch.allclose(div, differences, rtol=0, atol=1e-8)
    assert torch.allclose(v, net(x, t, cond), rtol=0, atol=1e-14)


@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_divergence_by_the_networks_own_derivatives_agrees_with_automatic_ones(guidance):
    field, x = samplers.guided(smooth_network(), guidance), points(3, 20)
    cond, t = (
        torch.randn(3, 4, dtype=torch.float64),
        torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64),
    )
    v, div = likelihood.divergence(field, PATH, x, t, cond)
    v_auto, div_auto = likelihood.divergence(lambda *arguments: field(*arguments), PATH, x, t, cond)
    assert torch.allclose(v, v_auto, rtol=0, atol=1e-13)
    assert torch.allclose(div, div_auto, rtol=0, atol=1e-11)


def test_log_prob_of_points_shared_by_images():
    """An expanded tensor: several images, one copy of the points."""
    x = points(20).expand(3, -1, -1)
    network = smooth_network()
    for field in (network, lambda *arguments: network(*arguments)):
        log_p = likelihood.log_prob(
            field, PATH, x, times(2), torch.zeros(3, 4, dtype=torch.float64)
        )
        assert torch.allclose(log_p[1:], log_p[:1].expand(2, -1), atol=1e-12)


def test_divergence_integrates_to_zero():
    cells = healpix.centers(torch.arange(12 * 4**3), 3)[None]
    with torch.no_grad():
        _, div = likelihood.divergence(smooth_network(), PATH, cells, 0.5)
    assert float(div.std()) > 0.1
    assert abs(float(div.mean())) < 1e-3 * float(div.std())


# Log-probability


def test_zero_field_is_uniform():
    log_p = likelihood.log_prob(lambda x, t, c: torch.zeros_like(x), PATH, points(2, 10), times(4))
    assert torch.allclose(log_p, torch.full_like(log_p, sphere.LOG_UNIFORM), rtol=0, atol=1e-15)


@pytest.mark.parametrize("rate", [0.5, 2.0, -1.0])
def test_log_prob_of_a_flow_solved_in_closed_form(rate):
    x = torch.cat([points(1, 200), POLE[None, None], -POLE[None, None]], 1)
    log_p = likelihood.log_prob(spring(rate), PATH, x, times(32))
    assert torch.allclose(log_p, spring_log_prob(x, rate), rtol=0, atol=1e-5)
    single = likelihood.log_prob(spring(rate), PATH, x.float(), times(16).float())
    assert torch.allclose(single.double(), spring_log_prob(x, rate), rtol=0, atol=2e-4)


def test_log_prob_by_an_adaptive_solver():
    x = points(1, 50)
    log_p = likelihood.log_prob(spring(), PATH, x, times(1), solver="dopri5")
    assert torch.allclose(log_p, spring_log_prob(x), rtol=0, atol=1e-5)


def test_samples_follow_the_density():
    """Means of the exact density: E z = coth r − r / sinh² r."""
    rate, n = 1.2, 20_000
    noise = sphere.uniform((1, n), torch.Generator().manual_seed(0)).double()
    x = samplers.sample(spring(rate), PATH, noise, times(16))
    expected = 1 / math.tanh(rate) - rate / math.sinh(rate) ** 2
    assert float(x[..., 2].mean()) == pytest.approx(
        expected, abs=4 * float(x[..., 2].std()) / math.sqrt(n)
    )


def test_density_of_a_network_integrates_to_one():
    cells = healpix.centers(torch.arange(12 * 4**3), 3)[None]
    cond = torch.randn(1, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    log_p = likelihood.log_prob(smooth_network(), PATH, cells, times(8), cond)
    assert float(log_p.std()) > 0.3
    assert float(log_p.exp().mean()) * 4 * math.pi == pytest.approx(1, abs=2e-3)


def test_guided_density_integrates_to_one():
    cells = healpix.centers(torch.arange(12 * 4**3), 3)[None]
    cond = torch.randn(1, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    log_p = likelihood.log_prob(samplers.guided(smooth_network(), 1.0), PATH, cells, times(8), cond)
    assert float(log_p.exp().mean()) * 4 * math.pi == pytest.approx(1, abs=5e-3)


def test_forward_and_backward_log_probs_agree():
    net, noise, cond = smooth_network(), points(2, 50), torch.randn(2, 4, dtype=torch.float64)
    x, forward = likelihood.sample_with_log_prob(net, PATH, noise, times(32), cond)
    backward = likelihood.log_prob(net, PATH, x, times(32), cond)
    assert torch.allclose(forward, backward, rtol=0, atol=1e-5)
    assert torch.allclose(x, samplers.sample(net, PATH, noise, times(32), cond), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("guidance", "tolerance"), [(0, 1e-3), (2, 5e-3)])
def test_log_prob_of_published_layout_agrees_with_an_independent_solution(guidance, tolerance):
    """The official network's exact Riemannian log-density, solved elsewhere in float64 to 1e-8."""
    truth = official.tensors("likelihood")
    net = plonk.plain(plonk.network(official.FOLDER, "riemannian").double())
    x = sphere.from_latlon(truth["coordinates_deg"])[:, None]
    log_p = likelihood.log_prob(
        samplers.guided(net, guidance), PATH, x, times(200), truth["emb"].double()
    )[:, 0]
    assert torch.allclose(
        log_p, truth[f"RIEMANNIAN_logp_raw_cfg{guidance}_f64"], rtol=0, atol=tolerance
    )
