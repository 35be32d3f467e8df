"""What a Geolocator is handed is checked; large requests in parts give what one call gives."""

import pytest
import torch

from geoflow import baselines, inputs, sphere
from geoflow.samplers import SolverOptions


@pytest.mark.parametrize("states", [1, 3, 5000])
@pytest.mark.parametrize(("batch", "n"), [(1, 1), (3, 7), (5, 2000), (200, 12)])
def test_parts_cover_every_point_once_in_order(batch, n, states):
    points = torch.arange(batch * n * 3, dtype=torch.float64).reshape(batch, n, 3)
    cond, sizes = torch.arange(batch, dtype=torch.float64)[:, None], []

    def compute(x, c):
        sizes.append(x.shape[0] * x.shape[1] * states)
        return 2 * x + c[:, None], x[..., 0]

    moved, first = inputs.by_parts(compute, points, cond, states)
    assert torch.equal(moved, 2 * points + cond[:, None])
    assert torch.equal(first, points[..., 0])
    assert max(sizes) <= max(inputs.STATES_PER_CALL, states)
    assert torch.equal(
        inputs.by_parts(lambda x, c: x.sum(-1), points, None, states), points.sum(-1)
    )


def test_starting_points_are_shared_by_the_images_and_seeded():
    model, options = baselines.Uniform(), SolverOptions()
    first = inputs.starting_points(model, 3, 5, 0, None, options)
    assert first.shape == (3, 5, 3)
    assert torch.equal(first[0], first[2])
    assert torch.equal(inputs.starting_points(model, 1, 5, 0, None, options)[0], first[0])
    assert not torch.equal(inputs.starting_points(model, 3, 5, 1, None, options), first)


def test_options_that_are_not_named_are_the_models():
    model = baselines.Uniform()
    model.defaults = SolverOptions(steps=7, solver="heun")
    assert inputs.solver_options(model) == model.defaults
    assert inputs.solver_options(model, steps=3) == SolverOptions(3, "heun")
    assert inputs.solver_options(model, solver="rk4") == SolverOptions(7, "rk4")
    with pytest.raises(ValueError, match="guidance of 2.0 with method 'uniform', which has none"):
        inputs.solver_options(model, guidance=2.0)


def test_places_are_one_list_for_all_images_or_one_for_each():
    shared = inputs.places([[0.0, 0.0], [90.0, 0.0]], 3)
    assert torch.equal(shared, inputs.places(torch.tensor([[[0.0, 0.0], [90.0, 0.0]]] * 3), 3))
    assert torch.allclose(shared[1], sphere.from_latlon([[0.0, 0.0], [90.0, 0.0]]).float())
    with pytest.raises(
        ValueError, match=r"latlon has shape \(2, 1, 2\); expected \(3, N, 2\) or \(N, 2\)"
    ):
        inputs.places(torch.zeros(2, 1, 2), 3)
