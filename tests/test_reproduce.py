"""The paper's items run again: kept, refused when made from something else, and true where the truth is known."""

import hashlib
import json
import math
from pathlib import Path

import pytest
import torch

from geoflow import figures, reproduce, settings, sphere
from geoflow.data import earth_events
from geoflow.reproduce import Setup

PAGE = Path(__file__).resolve().parent.parent / "notebooks" / "RESULTS.md"


@pytest.fixture
def setup(tmp_path):
    lines: list[str] = []
    made = Setup("smoke", tmp_path, say=lines.append)
    made.lines = lines
    return made


def test_what_is_done_is_not_done_again(setup, tmp_path):
    first = reproduce.run(["fig2", "fig4"], setup)
    assert [line for line in setup.lines if line.endswith("…")] == ["fig2 …", "fig4 …"]
    files = sorted(file.name for file in setup.folder_for("fig4").iterdir())
    assert files == ["fig2.json", "fig2.md", "fig2.png", "fig4.json", "fig4.md", "fig4.png"]
    lines: list[str] = []
    again = reproduce.run(["fig4", "fig2"], Setup("smoke", tmp_path, say=lines.append))
    assert not [line for line in lines if line.endswith("…")]
    assert again == first
    assert reproduce.estimate(["fig2"], setup).startswith("1 of 1 steps are done")


def test_the_time_is_estimated_from_earlier_runs_in_proportion_to_the_images(setup):
    earlier = reproduce.read_result(reproduce.COMMITTED / "tiles-laptop" / "fig7.json")
    minutes = earlier.seconds * 32 / earlier.settings["images"] / 60
    assert reproduce.estimate(["fig7"], setup) == f"0 of 1 steps are done; 1 take about {minutes:.1f} min by earlier runs"
    assert reproduce.estimate(["fig1"], setup).endswith("nothing is known of the time of fig1"), "a map is not made image by image"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"geoflow": "0.0.0"}, "was computed by geoflow 0.0.0"),
        ({"inputs": {"riemannian, model.safetensors": "another"}}, "was computed from other inputs"),
        ({"settings": {"points": 3}}, "was computed with settings"),
        ({"format": 0}, "has format 0; this version reads 1"),
    ],
)
def test_a_result_of_something_else_is_refused_and_kept(setup, tmp_path, change, message):
    reproduce.run(["fig4"], setup)
    file = setup.folder_for("fig4") / "fig4.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    before = file.read_bytes()
    with pytest.raises(ValueError, match=message):
        reproduce.run(["fig4"], Setup("smoke", tmp_path, say=lambda line: None))
    assert file.read_bytes() == before


def test_a_damaged_result_is_refused(setup, tmp_path):
    reproduce.run(["fig4"], setup)
    (setup.folder_for("fig4") / "fig4.json").write_text("{")
    with pytest.raises(ValueError, match="no result of `geoflow reproduce`"):
        reproduce.run(["fig4"], Setup("smoke", tmp_path, say=lambda line: None))


def test_unknown_names_list_what_exists():
    with pytest.raises(ValueError, match="unknown table or figure 'table3'.*did you mean 'table"):
        reproduce.chosen(["table3"])
    with pytest.raises(ValueError, match=r"what figure 1 shows.*table1, table2, tableB, fig1"):
        reproduce.chosen(["fig3"])
    assert reproduce.chosen(["all"]) == [name for name in reproduce.ITEMS if name != "earth-events"]


def test_the_papers_scale_needs_its_data_and_models(tmp_path):
    with pytest.raises(ValueError, match="--data is missing"):
        Setup("paper", tmp_path)
    with pytest.raises(ValueError, match="--models is missing"):
        Setup("laptop", tmp_path, data=tmp_path)
    with pytest.raises(FileNotFoundError, match="no model in .*riemannian-0/model"):
        Setup("gpu", tmp_path, models=tmp_path)


def test_schedules_of_the_code_and_as_printed(setup):
    """Values worked out by hand from the formula: the printed constants skew to the other end."""
    drawn = setup.result("fig4").values
    at = [10, 30, 50, 70, 90]
    assert [round(drawn["kappa"]["skewed-sigmoid"][i], 4) for i in at] == [0.0016, 0.0179, 0.1243, 0.5244, 0.9246]
    assert [round(drawn["kappa"]["as printed"][i], 4) for i in at] == [0.0754, 0.4756, 0.8757, 0.9821, 0.9984]


def test_noisings_begin_at_random_points_and_end_at_the_place(setup):
    drawn = setup.result("fig2").values
    for method, file in drawn["paths"].items():
        states = figures.unpacked(file)
        ends = states[-1]
        assert float((ends - ends.mean(0)).norm(dim=-1).max()) < 0.003, "all points end at the same place"
        assert float(states[0].std()) > 0.4
        if method == "riemannian":
            assert float((states.norm(dim=-1) - 1).abs().max()) < 0.003


def test_more_steps_score_higher(setup):
    euler = setup.result("fig5").values["euler"]
    assert euler["1"]["geoscore"] < 500 < 3000 < euler["16"]["geoscore"]


@pytest.fixture
def made_up_events(tmp_path, monkeypatch):
    """Four small files with the names of the published ones."""
    monkeypatch.setattr(settings, "cache_dir", lambda: tmp_path / "cache")
    folder = earth_events.default_root()
    folder.mkdir(parents=True)
    for number, (name, source) in enumerate(earth_events.SOURCES.items()):
        latlon = sphere.to_latlon(sphere.uniform(60, torch.Generator().manual_seed(number)))
        text = "".join(f"{lat:.4f},{lon:.4f}\n" for lat, lon in [*latlon.tolist(), *latlon[:20].tolist()])
        (folder / source.file).write_text(text)
        source = earth_events.Source(source.file, hashlib.sha256(text.encode()).hexdigest(), 80)
        monkeypatch.setitem(earth_events.SOURCES, name, source)


def test_earth_events_are_kept_apart_and_a_changed_file_is_refused(made_up_events, tmp_path):
    setup = Setup("smoke", tmp_path, say=lambda line: None)
    result = reproduce.run(["earth-events"], setup)["earth-events"]["events-flood"]
    (run,) = result.values["runs"]
    assert run["counts"]["train"] == 64
    assert all(math.isfinite(scores["test"]) for scores in run["nll"].values())
    folder = tmp_path / "earth-events-smoke"
    assert (folder / "earth-events.png").exists()
    assert {file.stem for file in folder.glob("*.json")} == set(reproduce.ITEMS["earth-events"].steps)
    assert "Earth events" in reproduce.page(tmp_path, tmp_path / "RESULTS.md")
    (earth_events.default_root() / "flood.csv").write_text("1,2\n")
    with pytest.raises(ValueError, match="flood.csv is not the published file"):
        Setup("smoke", tmp_path).result("events-flood")
    assert json.loads((folder / "events-flood.json").read_text())["values"] == result.values


def test_missing_events_are_told_with_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "cache_dir", lambda: tmp_path / "cache")
    with pytest.raises(FileNotFoundError, match="no volerup.csv.*geoflow data fetch earth-events"):
        Setup("smoke", tmp_path).result("events-volcano")


def test_packed_numbers_come_back():
    values = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float((figures.unpacked(figures.packed(values, 0.01)) - values).abs().max()) <= 0.0051
    with pytest.raises(ValueError, match="expected finite ones"):
        figures.packed(torch.tensor([torch.nan]), 0.01)


def test_the_page_holds_what_was_run_and_says_what_was_not(setup, tmp_path):
    reproduce.run(["fig2"], setup)
    page = reproduce.page(tmp_path, tmp_path / "RESULTS.md")
    assert "![Figure 2: three noisings](tiles-smoke/fig2.png)" in page
    assert "| Figure 5: scores against steps |  |  |  |  |  | not run |" in page
    assert "each step once" not in page  # minutes of all only where all was run
    with pytest.raises(FileNotFoundError, match="no results"):
        reproduce.page(tmp_path / "tiles-smoke", tmp_path / "RESULTS.md")


def test_the_committed_page_is_what_its_results_make():
    assert PAGE.read_text(encoding="utf-8") == reproduce.page(reproduce.COMMITTED, PAGE)


def test_the_committed_densities_integrate_to_one():
    """Volcanoes by importance sampling: their needles are too narrow for a map."""
    results = {step: result.values for steps in reproduce.read_results(reproduce.COMMITTED).values() for step, result in steps.items()}
    densities = {step: [values["density"]] for step, values in results.items() if "density" in values}
    densities["fig1"] = [image["density"] for image in results["fig1"]["images"]]
    integrals = {step: [density["integral"] for density in found] for step, found in densities.items()}
    assert len(integrals) == 11
    integrals["events-volcano-map"] = [results["events-volcano-integral"]["integral"]]
    assert {step: found for step, found in integrals.items() if max(abs(value - 1) for value in found) > 0.005} == {}
    assert results["events-volcano-integral"]["error"] < 0.0025


def test_the_committed_results_are_those_of_the_shipped_weights(tmp_path, monkeypatch):
    """What comes with the repository is what the commands would take as done."""
    monkeypatch.setattr(Setup, "_computed", lambda self, name, *rest: pytest.fail(f"{name} would be computed anew"))
    setup = Setup("laptop", tmp_path, committed=reproduce.COMMITTED)
    files = sorted((reproduce.COMMITTED / "tiles-laptop").glob("*.json"))
    assert len(files) > 15
    for file in files:
        assert setup.result(file.stem).step == file.stem
