"""Densities of point sets: on events whose density is known, and the protocol around them."""

import json
import math

import pytest
import torch

from geoflow import sphere, vmf
from geoflow.paper import point_sets

TRUE = vmf.Mixture(
    torch.tensor([[0.6, 0.4]]).double().log(),
    sphere.from_latlon(torch.tensor([[[10.0, 20], [-40, 150]]], dtype=torch.float64)),
    torch.tensor([[60.0, 15.0]]).double(),
)
SMOKE = {
    "sampling_schedule": "linear",
    "flow": {
        "schedule": "linear",
        "draws": 2,
        "dropout": 0.0,
        "network": {"dim": 16, "depth": 1, "fourier": 8, "fourier_scale": 2.0, "time_scale": 20.0},
        "optimization": {"steps": 20, "batch": 64, "lr": 4.0e-3, "warmup": 2, "ema": 0.9},
    },
}


def drawn(n: int, seed: int) -> torch.Tensor:
    return TRUE.sample(
        torch.rand(1, n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    )[0]


def test_closed_forms_come_close_to_the_true_density_and_not_below():
    train, validation, test = drawn(400, 0), drawn(200, 1), drawn(3000, 2)
    true = point_sets.nll(TRUE, test)
    mixture, kernel = (
        point_sets.tuned_mixture(train, validation),
        point_sets.tuned_kernel(train, validation),
    )
    assert true < point_sets.nll(mixture, test) < true + 0.1
    assert true < point_sets.nll(kernel, test) < true + 0.15
    assert (
        15 < float(kernel.concentration[0, 0]) < 3000
    )  # kernels wider than the peaks, or of a few points, would be a wrong choice


def test_a_repeated_place_makes_kernels_as_narrow_as_they_can_be():
    x = drawn(50, 3)
    kernel = point_sets.tuned_kernel(x, x)
    assert float(kernel.concentration[0, 0]) == max(point_sets.CONCENTRATIONS)


@pytest.fixture
def events():
    """A third of them repeat a place."""
    latlon = sphere.to_latlon(drawn(120, 4))
    latlon[80:] = latlon[:40]
    return latlon


def test_a_run_is_whole_and_kept(events, tmp_path):
    folder, lines = tmp_path / "run", []
    result = point_sets.fit_and_judge("made up", events, 0, SMOKE, folder, log=lines.append)
    assert result["counts"] == {
        "train": 96,
        "validation": 12,
        "test": 12,
        "new": result["counts"]["new"],
    }
    assert 0 < result["counts"]["new"] < 12
    assert result["solver_gap"] < 1e-3
    for scores in result["nll"].values():
        assert all(map(math.isfinite, scores.values()))
    assert point_sets.fit_and_judge("made up", events, 0, SMOKE, folder, log=lines.append) == result
    assert sum("points" in line for line in lines) == 1, "a finished run is not trained again"
    with pytest.raises(ValueError, match="the result of a run with seed = 0, not 1"):
        point_sets.fit_and_judge("made up", events, 1, SMOKE, folder)
    assert json.loads((folder / "result.json").read_text()) == result


def test_distinct_leaves_no_test_event_at_a_known_place(events, tmp_path):
    train, _, test = point_sets.splits(events, 0, distinct=True)
    assert len(train) == 64
    assert not {tuple(x) for x in train.tolist()} & {tuple(x) for x in test.tolist()}


def test_results_of_other_versions_are_refused(events, tmp_path):
    file = tmp_path / "result.json"
    file.write_text('{"format": 0}')
    with pytest.raises(ValueError, match="format 0; this version reads 2"):
        point_sets.fit_and_judge("made up", events, 0, SMOKE, tmp_path)
    file.write_text("{")
    with pytest.raises(ValueError, match="no result on earth events"):
        point_sets.fit_and_judge("made up", events, 0, SMOKE, tmp_path)


def test_the_table_has_the_published_rows_and_the_mean_of_ours():
    results = [
        {
            "events": "flood",
            "nll": {name: {"test": value, "new": value} for name in point_sets.DENSITIES},
        }
        for value in (0.5, 0.7)
    ]
    lines = point_sets.table(results).splitlines()
    (ours,) = (line for line in lines if line.startswith("| Riemannian flow, ours"))
    assert ours == "| Riemannian flow, ours |  |  | 0.60 ± 0.14 |  |"
    assert sum("published" in line for line in lines) == 7
    quoted = "| -6.61 ± 0.96 | -0.40 ± 0.05 | 0.43 ± 0.07 | -1.38 ± 0.05 |"
    assert any(quoted in line for line in lines)
    assert any("-1.86 ± 0.11" in line for line in lines)
    assert "published" not in point_sets.table(results, published=False)
