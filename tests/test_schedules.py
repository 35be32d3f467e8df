"""Schedules warp [0, 1] monotonically; the paper's constants."""

import math

import official
import pytest
import torch

from geoflow import schedules

S = torch.linspace(0, 1, 1001, dtype=torch.float64)


@pytest.mark.parametrize("name", [*schedules.SCHEDULES, *schedules.SAMPLING, "log", "mixed"])
def test_schedules_rise_from_0_to_1(name):
    t = schedules.by_name(name)(S)
    assert float(t[0]) == pytest.approx(0, abs=1e-15)
    assert float(t[-1]) == pytest.approx(1, abs=1e-15)
    assert (t.diff() > 0).all()
    single = schedules.by_name(name)(S.float())
    assert single.dtype == torch.float32
    assert single.min() >= 0
    assert single.max() <= 1
    assert (single.diff() >= 0).all()


@pytest.mark.parametrize("name", ["linear", "sigmoid", "cosine"])
def test_symmetric_schedules(name):
    warp = schedules.by_name(name)
    assert torch.allclose(warp(S) + warp(1 - S), torch.ones_like(S), atol=1e-14)


def test_skewed_sigmoid_has_the_noise_levels_of_the_official_code():
    noise_level = 1 - schedules.by_name("skewed-sigmoid")(
        1 - torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)
    )
    assert noise_level.tolist() == pytest.approx([0.0016, 0.0179, 0.1243, 0.5244, 0.9246], abs=6e-5)


def test_schedules_agree_with_the_official_code():
    expected = official.tensors("schedulers")
    s = torch.linspace(1, 0, 101, dtype=torch.float64)  # its clock starts at the data
    assert torch.allclose(
        schedules.by_name("skewed-sigmoid")(s), expected["sigmoid_m7_3_1_f64"], rtol=0, atol=2e-9
    )
    assert torch.allclose(schedules.by_name("linear")(s), expected["linear_f64"], rtol=0, atol=2e-9)


def test_time_grid_is_the_schedule_at_equal_steps():
    grid = schedules.time_grid(schedules.by_name("skewed-sigmoid"), 16)
    assert grid.shape == (17,)
    assert grid[0] == 0
    assert grid[-1] == 1
    assert (grid.diff() > 0).all()
    assert float(grid[8]) == pytest.approx(1 - 0.1243, abs=6e-5)
    assert schedules.time_grid(schedules.linear, 1).tolist() == [0, 1]


@pytest.mark.parametrize("steps", [0, -1, 2.5])
def test_time_grid_refuses_what_is_no_number_of_steps(steps):
    with pytest.raises(ValueError, match=str(steps)):
        schedules.time_grid(schedules.linear, steps)


def test_bad_schedules():
    with pytest.raises(ValueError, match="did you mean 'skewed-sigmoid'"):
        schedules.by_name("skewed_sigmoid")
    with pytest.raises(ValueError, match="from 3 to -7"):
        schedules.sigmoid(3, -7)


def test_log_times_give_each_e_fold_its_share():
    """Between two times lies the logarithm of the quotient of what is left, up to ε."""
    t = schedules.by_name("log")(S)
    left = 1 - (1 - 1e-3) * t
    assert torch.allclose(left.log().diff(), torch.full((1000,), math.log(1e-3) / 1000).double())
    assert torch.allclose(schedules.log_clock(t), S, rtol=0, atol=1e-12)
    clock = schedules.log_clock(S, 1e-4)
    assert torch.allclose((1 - 1e-4**clock) / (1 - 1e-4), S, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "end", "percent"),
    [("mixed", 1e-3, 30), ("mixed-steps", 1e-2, 30), ("flow-steps", 3e-4, 15)],
)
def test_mixed_times_are_those_of_a_mixture(name, end, percent):
    """As many uniform draws before each time as 30 % of the draws, and log times as 70 %; or as 15 % and 85 %."""
    n = 50_000
    even = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    shares = even.repeat(percent // 5), ((1 - end**even) / (1 - end)).repeat(20 - percent // 5)
    mixture = torch.cat(shares).sort().values
    mixed = schedules.by_name(name)((torch.arange(len(mixture)) + 0.5).double() / len(mixture))
    assert (mixed - mixture).abs().max() < 1e-4
