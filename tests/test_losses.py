"""Losses leave their inputs alone, vanish for the exact field, and follow their generator."""

import math

import pytest
import torch

from geoflow import losses, paths, schedules, sphere

PATH = paths.by_name("riemannian")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Recorder:
    """A network of zeros that remembers what it was asked."""

    def __call__(self, x, t, cond):
        self.x, self.t, self.cond = x, t, cond
        return torch.zeros_like(x)


def test_inputs_are_left_untouched():
    x1, cond = sphere.uniform(64, seeded(1)), torch.randn(64, 8, generator=seeded(2))
    before = x1.clone(), cond.clone()

    def network(x, t, c):
        return x * c.sum(-1)[:, None, None] + t[..., None]

    losses.flow_matching_loss(network, PATH, x1, cond, draws=3, dropout=0.9, generator=seeded())
    assert torch.equal(x1, before[0])
    assert torch.equal(cond, before[1])


def test_exact_field_of_one_place_has_no_loss(float64):
    place = sphere.from_latlon(torch.tensor([[61.0, 97.0]]))

    def exact(x, t, cond):
        return sphere.log(x, place.expand_as(x)) / (1 - t.to(x))[..., None]

    loss = losses.flow_matching_loss(
        exact, PATH, place.expand(256, -1), draws=4, generator=seeded()
    )
    assert float(loss) < 1e-6  # noise is drawn in float32
    slower = losses.flow_matching_loss(
        lambda *a: 0.9 * exact(*a), PATH, place.expand(256, -1), draws=4, generator=seeded()
    )
    assert float(slower) == pytest.approx(
        0.01 * (math.pi**2 / 2 - 2), rel=0.1
    )  # 0.1² E θ² of uniform noise


def test_loss_of_zero_is_the_mean_squared_distance():
    x1 = sphere.uniform(5000, seeded(1))
    loss = losses.flow_matching_loss(Recorder(), PATH, x1, draws=2, generator=seeded())
    assert float(loss) == pytest.approx(math.pi**2 / 2 - 2, abs=0.1)  # ∫ θ² sin θ/2 dθ


def test_one_generator_one_loss():
    x1, cond = sphere.uniform(64, seeded(1)), torch.randn(64, 3, generator=seeded(2))

    def loss(seed):
        return float(
            losses.flow_matching_loss(
                lambda x, t, c: c[:, None] * t[..., None], PATH, x1, cond, generator=seeded(seed)
            )
        )

    assert loss(3) == loss(3)
    assert loss(3) != loss(4)


def test_loss_does_not_use_the_global_generator():
    x1 = sphere.uniform(64, seeded(1))
    before = torch.random.get_rng_state()
    losses.flow_matching_loss(Recorder(), PATH, x1, torch.ones(64, 2), generator=seeded())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_network_sees_points_times_and_conditions_of_each_image():
    network = Recorder()
    x1, cond = sphere.uniform(32, seeded(1)), torch.ones(32, 5)
    losses.flow_matching_loss(network, PATH, x1, cond, draws=3, dropout=0.0, generator=seeded())
    assert network.x.shape == (32, 3, 3)
    assert network.t.shape == (32, 3)
    assert torch.equal(network.cond, cond)
    assert torch.allclose(torch.linalg.vector_norm(network.x, dim=-1), torch.ones(32, 3), atol=1e-6)
    losses.flow_matching_loss(network, PATH, x1, None, generator=seeded())
    assert network.cond is None


def test_condition_is_dropped_at_its_rate_for_whole_images():
    n = 40_000
    cond = torch.ones(n, 4)
    dropped = losses.drop_condition(cond, 0.1, seeded())
    zero = (dropped == 0).all(-1)
    assert torch.equal(zero, (dropped == 0).any(-1))
    assert float(zero.double().mean()) == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / n))
    assert torch.equal(cond, torch.ones(n, 4))


def test_condition_dropout_at_its_ends():
    cond = torch.ones(1000, 2)
    assert torch.equal(losses.drop_condition(cond, 0.0, seeded()), cond)
    assert torch.equal(losses.drop_condition(cond, 1.0, seeded()), torch.zeros(1000, 2))
    for rate in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match=str(rate)):
            losses.drop_condition(cond, rate)


def test_times_of_a_batch_are_evenly_spread():
    n = 64
    t = losses.draw_times((16, 4), schedules.linear, seeded())
    assert t.shape == (16, 4)
    t = t.flatten()
    assert t.min() >= 0
    assert t.max() < 1
    assert torch.allclose(t.sort().values.diff(), torch.full((n - 1,), 1 / n), atol=1e-6)
    assert not torch.equal(t, t.sort().values)


def test_each_time_alone_is_uniform():
    generator = seeded()
    first = (
        torch.stack([losses.draw_times((8,), schedules.linear, generator)[0] for _ in range(4000)])
        .double()
        .sort()
        .values
    )
    assert (first - torch.linspace(0, 1, 4000, dtype=torch.float64)).abs().max() < 1.63 / math.sqrt(
        4000
    )  # Kolmogorov, 1 %


def test_times_follow_the_schedule():
    warp = schedules.by_name("skewed-sigmoid")
    assert torch.allclose(
        losses.draw_times((50,), warp, seeded()),
        warp(losses.draw_times((50,), schedules.linear, seeded())),
    )
