"""The velocity network: tangent, pointwise, one conditioning per image, PLONK's layers exactly."""

import json

import official
import pytest
import torch

from geoflow import plonk, sphere
from geoflow.velocity import SIDES, VelocityTransformer, time_averaged


def network(seed=0, **options):
    """A small network none of whose weights are zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = VelocityTransformer(**{"cond_dim": 8, "dim": 32, "depth": 2, **options})
        for name, weight in net.named_parameters():
            if "modulation" in name:
                torch.nn.init.normal_(weight, std=0.2)
    return net.eval()


def points(*shape, seed=0):
    return sphere.uniform(shape, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("options", [{}, {"fourier": 16}, {"cond_dim": 0}])
def test_velocity_is_tangent(options):
    net, x = network(**options), points(3, 50)
    cond = torch.randn(3, 8) if net.config["cond_dim"] else None
    v = net(x, 0.3, cond)
    assert v.shape == x.shape
    assert torch.linalg.vector_norm(v, dim=-1).mean() > 0.1
    assert (x * v).sum(-1).abs().max() < 1e-6


def test_velocity_is_constant_along_rays(float64):
    net, x = network(), points(2, 20).double()
    assert torch.allclose(net(3 * x, 0.5), net(x, 0.5), atol=1e-14)


def test_no_condition_is_a_zero_condition():
    net, x = network(), points(4, 6)
    assert torch.allclose(net(x, 0.3, None), net(x, 0.3, torch.zeros(4, 8)), atol=1e-6)


def test_batch_of_one():
    net, x, cond = network(), points(5, 7), torch.randn(5, 8)
    together = net(x, 0.3, cond)
    for i in range(5):
        assert torch.allclose(net(x[i : i + 1], 0.3, cond[i : i + 1]), together[i : i + 1], atol=1e-6)
    assert torch.allclose(net(x[:1, :1], 0.3, cond[:1]), together[:1, :1], atol=1e-6)


def test_points_do_not_see_each_other():
    net, x, cond = network(fourier=8), points(2, 40), torch.randn(2, 8)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    t = torch.rand(2, 40)
    assert torch.allclose(net(x[:, order], t[:, order], cond), net(x, t, cond)[:, order], atol=1e-6)


def test_time_per_batch_per_image_and_per_point_agree():
    net, x, cond = network(), points(3, 5), torch.randn(3, 8)
    expected = net(x, 0.4, cond)
    for t in (torch.tensor(0.4), torch.full((3,), 0.4), torch.full((3, 5), 0.4), torch.full((3, 1), 0.4)):
        assert torch.allclose(net(x, t, cond), expected, atol=1e-6)
    t = torch.tensor([0.1, 0.5, 0.9])
    assert torch.allclose(net(x, t, cond), torch.cat([net(x[i : i + 1], t[i], cond[i : i + 1]) for i in range(3)]), atol=1e-6)


def test_conditioning_is_computed_once_per_image_and_equals_per_point():
    net, x, cond = network(), points(2, 30), torch.randn(2, 8)
    rows = []
    net.embed_time.mlp.register_forward_hook(lambda module, inputs, output: rows.append(output[..., 0].numel()))
    net.embed_cond.register_forward_hook(lambda module, inputs, output: rows.append(output[..., 0].numel()))
    net.blocks[0].modulation.register_forward_hook(lambda module, inputs, output: rows.append(output[..., 0].numel()))
    per_image = net(x, torch.tensor([0.2, 0.7]), cond)
    assert rows == [2, 2, 2]
    per_point = net(x.reshape(60, 1, 3), torch.tensor([0.2, 0.7]).repeat_interleave(30), cond.repeat_interleave(30, 0))
    assert torch.allclose(per_image, per_point.reshape(2, 30, 3), atol=1e-6)


def test_velocity_depends_on_point_time_and_condition():
    net, x, cond = network(), points(1, 3), torch.randn(1, 8)
    v = net(x, 0.3, cond)
    for other in (net(points(1, 3, seed=1), 0.3, cond), net(x, 0.31, cond), net(x, 0.3, cond + 0.1)):
        assert (other - v).abs().max() > 1e-4


@pytest.mark.parametrize("options", [{}, {"fourier": 8}, {"tangent": False}, {"cond_dim": 0}])
@pytest.mark.parametrize("length", [1.0, 1.7])
def test_own_derivatives_are_the_automatic_ones(options, length, float64):
    net, x = network(**options), length * points(2, 6).double()
    cond = torch.randn(2, 8) if net.config["cond_dim"] else None
    t, directions = torch.tensor([0.2, 0.8]), torch.randn(3, 2, 6, 3)
    v, rates = net.jvp(x, t, cond, directions)
    for direction, rate in zip(directions, rates, strict=True):
        expected = torch.func.jvp(lambda y: net(y, t, cond), (x,), (direction,))
        assert torch.allclose(v, expected[0], rtol=0, atol=1e-13)
        assert torch.allclose(rate, expected[1], rtol=0, atol=1e-12)


def test_bfloat16_network_keeps_coordinates_in_float32():
    net, x, cond = network(fourier=8), points(2, 50), torch.randn(2, 8)
    exact = net(x, 0.3, cond)
    with torch.autocast("cpu", torch.bfloat16):
        v = net(x, 0.3, cond)
    assert v.dtype == torch.float32
    assert (x * v).sum(-1).abs().max() < 1e-6
    assert (v - exact).abs().max() < 0.05 * exact.abs().max()


def test_fresh_network_starts_with_blocks_that_do_nothing():
    torch.manual_seed(0)
    net = VelocityTransformer(cond_dim=8, dim=32, depth=3)
    h, c = torch.randn(2, 5, 32), torch.randn(2, 1, 32)
    assert all(torch.equal(block(h, c), h) for block in net.blocks)


def test_config_rebuilds_the_network():
    net = network(fourier=8, expansion=2, time_scale=10.0)
    twin = VelocityTransformer(**json.loads(json.dumps(net.config)))
    twin.load_state_dict(net.state_dict())
    x = points(2, 5)
    assert torch.equal(net(x, 0.3), twin.eval()(x, 0.3))


@pytest.mark.parametrize(
    ("x", "cond", "message"),
    [
        ((5, 3), None, r"\(5, 3\); expected \(B, N, 3\)"),
        ((2, 5, 2), None, r"\(2, 5, 2\)"),
        ((2, 5, 3), (2, 7), r"\(2, 7\); expected \(2, 8\)"),
        ((2, 5, 3), (3, 8), r"\(3, 8\); expected \(2, 8\)"),
        ((2, 5, 3), (8,), r"\(8,\)"),
    ],
)
def test_wrong_shapes(x, cond, message):
    with pytest.raises(ValueError, match=message):
        network()(torch.ones(x), 0.5, None if cond is None else torch.ones(cond))


@pytest.mark.parametrize("dim", [8, 20, 0])
def test_wrong_width(dim):
    with pytest.raises(ValueError, match=f"dim={dim}"):
        VelocityTransformer(cond_dim=4, dim=dim)


# Averages over time


def test_averaged_conditioning_is_a_mean_over_times():
    net = network(cond_dim=4, time_scale=1000.0)
    x, cond, (t, window) = points(1, 5), torch.randn(1, 4), (0.4, 0.1)
    times = t + window * (torch.arange(4000) / 3999 - 0.5)
    mean = torch.cat([net._condition(x, time, cond, 0.0) for time in times]).mean(0)
    assert torch.allclose(net._condition(x, t, cond, window)[0], mean, atol=0.02)
    assert not torch.allclose(net._condition(x, t, cond, 0.0)[0], mean, atol=0.02)
    narrow = net.jvp(x, t, cond, x.new_zeros(0, *x.shape), 1e-7)[0]
    assert torch.allclose(narrow, net(x, t, cond), atol=1e-4)


def test_only_waves_that_steps_do_not_resolve_are_averaged_over():
    smooth, rough = network(time_scale=20.0), network(time_scale=1000.0)
    assert time_averaged(smooth, torch.linspace(0, 1, 5)) is smooth
    assert time_averaged(rough, torch.linspace(0, 1, 701)) is rough
    assert time_averaged(rough, torch.linspace(0, 1, 501)) is not rough
    averaged = time_averaged(rough, torch.linspace(0, 1, 17))
    assert averaged.tangent == rough.tangent
    x = points(2, 5)
    v = averaged(x, 1.0, None)
    assert torch.allclose((v * x).sum(-1), torch.zeros(2, 5), atol=1e-5)
    assert torch.allclose(v, rough.jvp(x, 1.0, None, x.new_zeros(0, *x.shape), 1 / 48)[0], atol=1e-6)
    of_ends = time_averaged(rough, torch.linspace(0, 1, 17), multistep=True)
    assert torch.allclose(of_ends(x, 0.5, None), rough.jvp(x, 0.5, None, x.new_zeros(0, *x.shape), 1 / 16)[0], atol=1e-6)


def test_sides_of_the_mean_have_the_spread_of_the_window():
    """Mean and covariance of the two sides over four steps are those of the conditioning in the window."""
    net, x, cond = network(time_scale=1000.0), points(2, 5), torch.randn(2, 8)
    mean = net._condition(x, 0.4, cond, 0.004)  # few waves turn in so short a time: four components are all there is
    spread = torch.stack([net._condition(x, 0.4, cond, 0.004, way * torch.tensor(row)) - mean for row in SIDES for way in (1, -1)])[:, :, 0]
    assert spread.abs().mean() > 0.01
    assert torch.allclose(spread.sum(0), torch.zeros(2, 32), atol=1e-5)
    times = 0.4 + 0.004 * ((torch.arange(32) + 0.5) / 32 - 0.5)
    c = torch.stack([net._condition(x, t, cond, 0.0)[:, 0] for t in times]) - mean[:, 0]
    covariance, expected = (torch.einsum("nbi,nbj->bij", a, a) / len(a) for a in (spread, c))
    assert torch.allclose(covariance, expected, atol=0.02 * expected.detach().abs().max().item())


def test_sides_of_the_mean_see_the_curvature():
    """The mean of the velocity over a window is nearer to that of the two sides than to the velocity of the mean."""
    net, x, cond, none = network(time_scale=1000.0), points(1, 200), torch.randn(1, 8), torch.zeros(0, 1, 200, 3)
    window = 0.01
    times = 0.4 + window * ((torch.arange(1000) + 0.5) / 1000 - 0.5)
    exact = torch.stack([net(x, t, cond) for t in times]).mean(0)
    sides = [net.jvp(x, 0.4, cond, none, window, way * torch.tensor(row))[0] for row in SIDES for way in (1, -1)]
    error, without = ((v - exact).abs().mean() for v in (torch.stack(sides).mean(0), net.jvp(x, 0.4, cond, none, window)[0]))
    assert error < without / 3


def test_only_the_middle_of_a_step_has_sides():
    net, x = network(time_scale=1000.0), points(1, 5)
    both, mean = (time_averaged(net, torch.linspace(0, 1, 17), sides=sides) for sides in (True, False))
    first, again, next_step = both(x, 1 / 32), both(x, 1 / 32), both(x, 3 / 32)
    assert not torch.allclose(first, again, atol=1e-4)
    assert torch.allclose((first + again) / 2, mean(x, 1 / 32), atol=0.1 * float((first - again).abs().max()))
    assert not torch.allclose(next_step, mean(x, 3 / 32), atol=1e-4)
    for _ in range(2):
        assert torch.equal(both(x, 1 / 16), mean(x, 1 / 16))
    assert torch.equal(both(x, 1 / 32), first)  # another time has been asked about: the first side again


# Parity with the official code: its weights, its answers


@pytest.mark.parametrize("name", ["", "odd/"], ids=["even", "odd"])
def test_official_weights_give_official_answers(name):
    net = plonk.network(official.FOLDER / name, "flow")  # the plain function, not projected
    io = official.tensors(f"{name}forward")
    assert torch.allclose(net.embed_time(io["gamma"]), io["time_embedding"], rtol=0, atol=1e-5)
    for y, t, cond in ((io["y"][:, None], io["gamma"], io["emb"]),):
        assert torch.allclose(net(y, t, cond)[:, 0], io["out"], rtol=0, atol=1e-5)
    exact = net.double()(io["y"][:, None].double(), io["gamma"].double(), io["emb"].double())[:, 0]
    assert torch.allclose(exact, io["out_f64"], rtol=0, atol=2e-6)  # γ enters the official cosines in float32 frequencies
    null = net(io["y"][3:4, None].double(), io["gamma"][3].double(), None)[:, 0]
    assert torch.allclose(null, io["out_f64"][3:4], rtol=0, atol=2e-6)


def test_network_has_the_size_of_the_paper():
    def count(dim):
        return sum(weight.numel() for weight in VelocityTransformer(cond_dim=1024, dim=dim).parameters())

    assert count(512) == 36_034_563
    assert count(256) == 9_153_539
