"""Solvers: their orders, their cost, the sphere; guidance; samples that belong to an image."""

import math

import pytest
import torch
from small import points

from geoflow import paths, samplers, sphere
from geoflow.velocity import VelocityTransformer

PATH = paths.by_name("riemannian")
AXIS = sphere.unit(torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64))


def times(steps):
    return torch.linspace(0, 1, steps + 1, dtype=torch.float64)


def speed(t):
    """A turning speed that varies, and the angle turned by t = 1."""
    return 1.5 + torch.cos(torch.as_tensor(3.0 * t, dtype=torch.float64))


ANGLE = 1.5 + math.sin(3.0) / 3


def rotation(x, t, cond=None):
    return speed(t) * torch.linalg.cross(AXIS.expand_as(x), x)


def rotated(x, angle):
    skew = torch.linalg.cross(AXIS.expand(3, 3), torch.eye(3, dtype=torch.float64)).T
    return x @ torch.linalg.matrix_exp(angle * skew).T


ORDERS = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4, "ab3": 3}


@pytest.mark.parametrize("solver", samplers.FIXED)
def test_order_on_the_rotation_field(solver):
    x = points(1, 200)
    truth = rotated(x, ANGLE)
    steps = [16, 32, 64]
    errors = [
        sphere.distance(samplers.sample(rotation, PATH, x, times(n), solver=solver), truth).max()
        for n in steps
    ]
    slope = math.log2(errors[1] / errors[2])
    assert slope == pytest.approx(ORDERS[solver], abs=0.15)
    assert solver not in samplers.SOLVERS or samplers.SOLVERS[solver].order == ORDERS[solver]


@pytest.mark.parametrize("solver", samplers.FIXED)
def test_order_of_an_integral_along_the_way(solver):
    x = points(1, 200)

    def field(x, t):
        return rotation(x, t), (x[..., 0] + t) ** 2

    def integral(n):
        *_, (_, total) = samplers.integrate(field, PATH, x, times(n), solver)
        return total

    *_, (_, truth) = samplers.integrate(field, PATH, x, times(256), "rk4")
    slope = math.log2((integral(32) - truth).abs().max() / (integral(64) - truth).abs().max())
    assert slope == pytest.approx(ORDERS[solver], abs=0.15)


def test_tableaux_are_consistent():
    for tableau in samplers.SOLVERS.values():
        assert sum(tableau.b) == pytest.approx(1)
        assert [sum(row) for row in tableau.a] == pytest.approx(list(tableau.c))
        assert (
            sum(b * c for b, c in zip(tableau.b, tableau.c, strict=True)) == pytest.approx(0.5)
            or tableau.order == 1
        )


@pytest.mark.parametrize("solver", samplers.ADAPTIVE)
def test_adaptive_solvers_agree(solver):
    x = points(1, 50)
    end = samplers.sample(rotation, PATH, x, times(1), solver=solver)
    assert float(sphere.distance(end, rotated(x, ANGLE)).max()) < 2e-5
    *_, (_, total) = samplers.integrate(
        lambda x, t: (rotation(x, t), torch.ones_like(x[..., 0])), PATH, x, times(3), solver
    )
    assert torch.allclose(total, torch.ones_like(total), atol=1e-6)


@pytest.mark.parametrize("solver", samplers.FIXED)
def test_one_step_follows_a_geodesic_exactly(solver):
    x0, x1 = points(1, 300), points(1, 300, seed=1)

    def field(x, t, cond):
        return sphere.geodesic_velocity(x0, x1, t)

    assert torch.allclose(
        samplers.sample(field, PATH, x0, times(1), solver=solver), x1, rtol=0, atol=1e-8
    )


def test_a_solution_runs_back_to_its_start():
    x = points(1, 50)
    there = samplers.sample(rotation, PATH, x, times(50))
    back = samplers.sample(rotation, PATH, there, times(50).flip(0))
    assert torch.allclose(back, x, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("solver", "stages"), [("euler", 1), ("midpoint", 2), ("heun", 2), ("rk4", 4)]
)
@pytest.mark.parametrize("steps", [1, 7])
def test_evaluation_counts_are_exact(solver, stages, steps):
    calls = []

    def counting(x, t, cond):
        calls.append(t)
        return rotation(x, t)

    samplers.sample(counting, PATH, points(1, 2), times(steps), solver=solver)
    assert len(calls) == stages * steps == samplers.evaluations(solver, steps)
    assert min(calls) >= 0
    assert max(calls) <= 1


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_multistep_solver_calls_once_a_step_after_the_first(steps):
    calls = []

    def counting(x, t, cond):
        calls.append(float(t))
        return rotation(x, t)

    samplers.sample(counting, PATH, points(1, 2), times(steps), solver="ab3")
    assert len(calls) == steps + 1 == samplers.evaluations("ab3", steps)
    assert calls == sorted(calls)


def test_a_multistep_solver_keeps_its_order_on_uneven_steps():
    """A parabola in time is met exactly by weights that know how uneven the steps are."""
    path, grid = paths.by_name("flow"), times(9) ** 2

    def parabola(x, t, cond):
        return torch.ones_like(x) * (3 * t**2 + 4 * t - 1)

    x = points(1, 4)
    grid = torch.cat(
        [torch.tensor([0.0, 1e-4, 2e-4], dtype=grid.dtype), grid[1:]]
    )  # the first two steps are of lower order
    end = samplers.sample(parabola, path, x, grid, solver="ab3")
    assert torch.allclose(end, x + 2, rtol=0, atol=1e-10)


def test_adaptive_solvers_have_no_fixed_count():
    assert samplers.evaluations("dopri5", 10) is None


@pytest.mark.parametrize("solver", [*samplers.FIXED, *samplers.ADAPTIVE])
def test_states_stay_on_the_sphere(solver):
    x = points(2, 20).float()

    def steep(x, t, cond):
        return 5 * sphere.to_tangent(x, torch.sin(3 * x.flip(-1)) + t)

    states = list(samplers.trajectory(steep, PATH, x, times(6).float(), solver=solver))
    assert len(states) == 7
    assert torch.equal(states[0], x)
    for state in states:
        assert state.dtype == torch.float32
        assert torch.allclose(torch.linalg.vector_norm(state, dim=-1), torch.ones(2, 20), atol=3e-7)


def test_zero_field_moves_nothing():
    x = points(2, 20).float()
    end = samplers.sample(lambda x, t, c: torch.zeros_like(x), PATH, x, times(5).float())
    assert torch.allclose(end, x, atol=3e-7)


def test_trajectory_is_lazy():
    calls = []

    def counting(x, t, cond):
        calls.append(t)
        return rotation(x, t)

    states = samplers.trajectory(counting, PATH, points(1, 2), times(100), solver="euler")
    for _ in range(4):
        next(states)
    assert len(calls) == 3


# Guidance


def test_guidance_is_its_formula_in_one_call_of_twice_the_batch():
    calls = []

    def velocity(x, t, cond):
        calls.append(tuple(x.shape))
        return x * cond.sum(-1)[:, None, None] + cond.square().sum(-1)[:, None, None] + t

    x, cond = points(3, 4), torch.randn(3, 5, dtype=torch.float64)
    with_cond, without = velocity(x, 0.3, cond), velocity(x, 0.3, torch.zeros_like(cond))
    calls.clear()
    v = samplers.guided(velocity, 2.0)(x, 0.3, cond)
    assert calls == [(6, 4, 3)]
    assert torch.allclose(v, with_cond + 2 * (with_cond - without), atol=1e-14)
    assert torch.allclose(samplers.guided(velocity, -1.0)(x, 0.3, cond), without, atol=1e-14)


@pytest.mark.parametrize("shape", [(), (3,), (3, 4)])
def test_guidance_takes_times_of_every_shape(shape):
    net, x, cond, t = (
        small_network().double(),
        points(3, 4),
        torch.randn(3, 4, dtype=torch.float64),
        torch.full(shape, 0.3, dtype=torch.float64),
    )
    expected = 3 * net(x, 0.3, cond) - 2 * net(x, 0.3, None)
    assert torch.allclose(samplers.guided(net, 2.0)(x, t, cond), expected, atol=1e-12)


def test_no_guidance_is_the_velocity_itself():
    def velocity(x, t, cond):
        return x

    assert samplers.guided(velocity, 0) is velocity
    assert samplers.guided(velocity, 0.0) is velocity


def test_guidance_without_a_condition_changes_nothing():
    x = points(2, 3)
    assert torch.equal(samplers.guided(lambda x, t, c: 2 * x, 3.0)(x, 0.5, None), 2 * x)


# Samples that belong to an image


def small_network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = VelocityTransformer(cond_dim=4, dim=32, depth=1, time_scale=5.0)
        torch.nn.init.normal_(net.blocks[0].modulation.weight, std=0.3)
    return net


def test_noise_belongs_to_the_key_and_the_seed():
    noise = samplers.noise_for(PATH, ["a", "b", 7], 10, seed=0)
    assert noise.shape == (3, 10, 3)
    assert torch.equal(samplers.noise_for(PATH, [7, "a"], 10, seed=0), noise[[2, 0]])
    assert not torch.equal(noise[0], noise[1])
    assert not torch.equal(samplers.noise_for(PATH, ["a"], 10, seed=1)[0], noise[0])


@pytest.mark.parametrize("solver", samplers.FIXED)
def test_an_image_has_the_same_samples_in_any_batch(solver):
    net, cond, keys = (
        small_network(),
        torch.randn(6, 4, generator=torch.Generator().manual_seed(1)),
        list(range(6)),
    )

    def draw(rows):
        noise = samplers.noise_for(PATH, [keys[i] for i in rows], 20, seed=0)
        return samplers.sample(net, PATH, noise, times(8), cond[rows], solver)

    together = draw([0, 1, 2, 3, 4, 5])
    assert torch.allclose(draw([4, 2]), together[[4, 2]], atol=1e-5)
    assert torch.allclose(draw([3]), together[[3]], atol=1e-5)


# Bad input


def test_unknown_solver_names_the_nearest():
    with pytest.raises(ValueError, match="unknown solver 'rk5' .did you mean 'rk4'"):
        samplers.sample(rotation, PATH, points(1, 2), times(2), solver="rk5")
    with pytest.raises(ValueError, match="'eular' .did you mean 'euler'"):
        samplers.evaluations("eular", 2)


@pytest.mark.parametrize("solver", [*samplers.FIXED, *samplers.ADAPTIVE])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_velocity_that_is_not_finite_stops_the_solver(solver, value):
    def broken(x, t, cond):
        v = rotation(x, t).clone()
        if t > 0.4:
            v[0, 0] = value
        return v

    with pytest.raises(FloatingPointError, match="not finite near t = "):
        samplers.sample(broken, PATH, points(1, 3), times(4), solver=solver)
