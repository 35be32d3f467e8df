"""The paper's items run again: kept, refused when made from something else, and true where the truth is known."""

import contextlib
import dataclasses
import hashlib
import json
import math
from pathlib import Path

import pytest
import torch

from geoflow import runtime, sphere
from geoflow.data import earth_events
from geoflow.paper import reproduce
from geoflow.paper.items import ALL, steps_of
from geoflow.paper.reproduce import Setup
from geoflow.paper.results import packed, unpacked
from geoflow.paper.steps import recipe_of_events, settings_of
from geoflow.paper.tables import read_yaml

PAGE = Path(__file__).resolve().parent.parent / "notebooks" / "RESULTS.md"


@contextlib.contextmanager
def made_up_events(folder: Path):
    """In place of the published files four small ones, where a third of the events repeat a place."""
    (folder / "earth_events").mkdir(parents=True, exist_ok=True)
    sources = {}
    for number, (name, source) in enumerate(earth_events.SOURCES.items()):
        latlon = sphere.to_latlon(sphere.uniform(60, torch.Generator().manual_seed(number)))
        rows = [*latlon.tolist(), *latlon[:20].tolist()]
        text = "".join(f"{lat:.4f},{lon:.4f}\n" for lat, lon in rows)
        (folder / "earth_events" / source.file).write_text(text)
        checksum = hashlib.sha256(text.encode()).hexdigest()
        sources[name] = earth_events.Source(source.file, checksum, 80)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "cache_dir", lambda: folder)
        patch.setattr(earth_events, "SOURCES", sources)
        yield


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Figures and events, run once: the setup, the results, and what was told.

    Notebook 12 runs all other items at this scale.
    """
    setup = Setup("smoke", tmp_path_factory.mktemp("smoke"), log=(lines := []).append)
    with made_up_events(setup.out / "cache"):
        results = reproduce.run(["fig2", "fig4", "fig5", "fig7", "earth-events"], setup)
    return setup, results, lines


@pytest.fixture
def setup(tmp_path):
    return Setup("smoke", tmp_path, log=lambda line: None)


# Results


def test_what_is_done_is_not_done_again(smoke):
    setup, first, lines = smoke
    assert [line for line in lines if line.startswith("fig")][:2] == ["fig2 …", "fig4 …"]
    files = sorted(file.name for file in setup.folder_for("fig4").glob("fig[24]*"))
    assert files == ["fig2.json", "fig2.md", "fig2.png", "fig4.json", "fig4.md", "fig4.png"]
    again = Setup("smoke", setup.out, log=(said := []).append)
    with made_up_events(setup.out / "cache"):
        found = reproduce.run(["fig4", "earth-events"], again)
    assert not [line for line in said if line.endswith("…")]
    assert said[0] == "14 of 14 steps are done"
    assert found == {name: first[name] for name in ("fig4", "earth-events")}


def test_every_step_has_settings_and_an_item():
    assert reproduce.STEPS.keys() == read_yaml("steps").keys() == set(steps_of(reproduce.ITEMS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"geoflow": "0.0.0"}, "was computed with geoflow = '0.0.0'"),
        ({"inputs": {"tiles": "another"}}, "was computed with tiles = 'another', not None"),
        ({"settings": {"points": 3}}, "was computed with points = 3, not 101"),
        ({"format": 0}, "has format 0; this version reads 1"),
        ({"another": 1}, "no result of `geoflow reproduce`"),
    ],
)
def test_a_result_of_something_else_is_refused_and_kept(setup, tmp_path, change, message):
    result = setup.result("fig4")
    file = setup.folder_for("fig4") / "fig4.json"
    file.write_text(json.dumps(dataclasses.asdict(result) | change))
    before = file.read_bytes()
    with pytest.raises(ValueError, match=message):
        reproduce.run(["fig4"], Setup("smoke", tmp_path, log=lambda line: None))
    assert file.read_bytes() == before


def test_a_damaged_result_is_refused(setup):
    file = setup.folder_for("fig4") / "fig4.json"
    file.parent.mkdir()
    file.write_text("{")
    with pytest.raises(ValueError, match="no result of `geoflow reproduce`"):
        reproduce.run(["fig4"], setup)


def test_a_network_that_is_trained_again_is_another_input(setup, monkeypatch):
    """A score names the weights of the step before, so that it is not kept when they change."""
    values = {"weights": "a", "seconds": 3600.0}
    stand_ins = {
        "train-linear": lambda setup: values,
        "score-linear": lambda setup, images, seed: {"images": images},
    }
    for name, compute in stand_ins.items():
        step = dataclasses.replace(reproduce.STEPS[name], compute=compute, inputs=lambda setup: {})
        monkeypatch.setitem(reproduce.STEPS, name, step)
    result = setup.result("score-linear")
    assert result.inputs == {"network, linear schedule": "a"}
    assert setup.result("train-linear").seconds == 3600.0, "of all parts of an interrupted training"
    values["weights"] = "b"
    (setup.folder_for("train-linear") / "train-linear.json").unlink()
    with pytest.raises(ValueError, match="network, linear schedule = 'a', not 'b'"):
        Setup("smoke", setup.out, log=lambda line: None).result("score-linear")


def test_the_other_steps_go_on_when_one_fails(setup, monkeypatch):
    def fail(setup, points):
        raise FileNotFoundError("no such model")

    broken = dataclasses.replace(reproduce.STEPS["fig4"], compute=fail)
    monkeypatch.setitem(reproduce.STEPS, "fig4", broken)
    with pytest.raises(ValueError, match="1 step failed: fig4: no such model"):
        reproduce.run(["fig4", "fig2"], setup)
    assert (setup.folder_for("fig2") / "fig2.png").exists()


def test_unknown_names_list_what_exists():
    with pytest.raises(ValueError, match=r"unknown table or figure 'table3'.*did you mean 'table"):
        reproduce.chosen(["table3"])
    with pytest.raises(ValueError, match=r"what figure 1 shows.*table1, table2, tableB, fig1"):
        reproduce.chosen(["fig3"])
    assert reproduce.chosen(["all"]) == [name for name in reproduce.ITEMS if name != "earth-events"]


def test_the_papers_scale_needs_its_data_and_models(tmp_path):
    with pytest.raises(ValueError, match="--data is missing"):
        Setup("paper", tmp_path)
    with pytest.raises(ValueError, match="--models is missing"):
        Setup("laptop", tmp_path, data=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no model in .*riemannian-0/model"):
        Setup("gpu", tmp_path, models=tmp_path)


def test_packed_numbers_come_back():
    values = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float((unpacked(packed(values, 0.01)) - values).abs().max()) <= 0.0051
    with pytest.raises(ValueError, match="expected finite ones"):
        packed(torch.tensor([torch.nan]), 0.01)


# Numbers


def test_schedules_of_the_code_and_as_printed(setup):
    """Values worked out by hand from the formula: the printed constants skew to the other end."""
    kappa = setup.result("fig4").values["kappa"]
    ours, printed = (
        [kappa[name][i] for i in (10, 30, 50, 70, 90)] for name in ("skewed-sigmoid", "as printed")
    )
    assert ours == pytest.approx([0.0016, 0.0179, 0.1243, 0.5244, 0.9246], abs=5e-5)
    assert printed == pytest.approx([0.0754, 0.4756, 0.8757, 0.9821, 0.9984], abs=5e-5)


def test_noisings_begin_at_random_points_and_end_at_the_place(setup):
    values = setup.result("fig2").values
    place = sphere.from_latlon(torch.tensor(values["place"]))
    for method, file in values["paths"].items():
        states = unpacked(file)
        assert float((states[-1] - place).norm(dim=-1).max()) < 0.02, (
            "the diffusion stops just before"
        )
        assert float(states[0].std()) > 0.4
        if method == "riemannian":
            assert float((states.norm(dim=-1) - 1).abs().max()) < 0.003


def test_more_steps_score_higher(smoke):
    euler = smoke[1]["fig5"]["fig5"].values["euler"]
    assert 2 * euler["1"]["geoscore"] < euler["16"]["geoscore"]


# Earth events


def test_earth_events_are_kept_apart_and_a_changed_file_is_refused(smoke):
    setup, found, _ = smoke
    result = found["earth-events"]["events-flood"]
    (run,) = result.values["runs"]
    assert run["counts"]["train"] == 64
    assert all(math.isfinite(scores["test"]) for scores in run["nll"].values())
    folder = setup.out / "earth-events-smoke"
    assert (folder / "earth-events.png").exists()
    steps = {file.stem for file in folder.glob("*.json")}
    assert steps == set(reproduce.ITEMS["earth-events"].steps)
    with made_up_events(setup.out / "cache"):
        (earth_events.default_root() / "flood.csv").write_text("1,2\n")
        with pytest.raises(ValueError, match=r"flood.csv is not the published file"):
            Setup("smoke", setup.out).result("events-flood")
    assert json.loads((folder / "events-flood.json").read_text())["values"] == result.values


def test_missing_events_are_told_with_how_to_get_them(setup, tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "cache_dir", lambda: tmp_path / "cache")
    with pytest.raises(FileNotFoundError, match=r"no volerup.csv.*geoflow data fetch earth-events"):
        setup.result("events-volcano")


# The page, and what comes with the repository


def test_the_page_holds_what_was_run_and_says_what_was_not(smoke, tmp_path):
    folder = smoke[0].out
    page = reproduce.page(folder, folder / "RESULTS.md")
    assert "![Figure 2: three noisings](tiles-smoke/fig2.png)" in page
    assert "| Table A: ablation of the Riemannian flow |  |  |  |  |  | not run |" in page
    assert "## Earth events: densities of points" in page
    assert "each step once" not in page, "minutes of all only where all was run"
    assert "| [Figure 3](#what-is-absent) |  |  |  |  |  | absent: nothing to compute |" in page
    assert "- YFCC4k: its parts of Table 1," in page
    assert "- Figure B draws the architecture" in page
    with pytest.raises(FileNotFoundError, match="no results"):
        reproduce.page(tmp_path, tmp_path / "RESULTS.md")


def test_the_committed_page_is_what_its_results_make():
    assert PAGE.read_text(encoding="utf-8") == reproduce.page(reproduce.COMMITTED, PAGE)


@pytest.fixture(scope="module")
def committed():
    """Step → result."""
    found = reproduce.read_results(reproduce.COMMITTED).values()
    return {step: result for results in found for step, result in results.items()}


@pytest.mark.parametrize("key", ["settings", "values", "seconds", "machine", "data", "step"])
def test_a_result_of_other_types_is_named(tmp_path, key):
    file = next((reproduce.COMMITTED / "tiles-laptop").glob("score-*.json"))
    values = json.loads(file.read_text(encoding="utf-8"))
    (tmp_path / "tiles-laptop").mkdir()
    (tmp_path / "tiles-laptop" / "a.json").write_text(json.dumps(values | {key: [5]}))
    with pytest.raises(ValueError, match=rf"a\.json is no result .*: {key} = '\[5\]'; expected"):
        reproduce.read_results(tmp_path)


def test_the_committed_densities_integrate_to_one(committed):
    """Volcanoes by importance sampling: their peaks are narrow for a map. The earthquakes' map had too few evaluations for 1 %."""
    values = {step: result.values for step, result in committed.items()}
    integrals = {
        step: found["density"]["integral"] for step, found in values.items() if "density" in found
    }
    integrals |= {
        f"fig1 {i}": image["density"]["integral"]
        for i, image in enumerate(values["fig1"]["images"])
    }
    assert len(integrals) == 13
    assert integrals["events-volcano-map"] == pytest.approx(1, abs=0.015)
    integrals["events-volcano-map"] = values["events-volcano-integral"]["integral"]
    assert integrals.pop("events-earthquake-map") == pytest.approx(1, abs=0.02)
    assert integrals == pytest.approx(dict.fromkeys(integrals, 1.0), abs=0.01)
    assert values["events-volcano-integral"]["error"] < 0.005


def test_the_committed_results_are_those_of_the_shipped_weights(committed, tmp_path, monkeypatch):
    """What comes with the repository is what the commands would take as done."""

    def computed(self, asked):
        pytest.fail(f"{asked['step']} would be computed anew")

    monkeypatch.setattr(Setup, "_computed", computed)
    setup = Setup("laptop", tmp_path, committed=reproduce.COMMITTED)
    tiles = [step for step, result in committed.items() if result.data != "earth-events"]
    assert set(tiles) == set(steps_of(ALL))
    for step in tiles:
        assert setup.result(step) == committed[step]


def test_the_committed_events_are_those_of_the_recipes(committed):
    """Of every step on earth events: settings, file and recipe, without the file itself."""
    for step, result in committed.items():
        if result.data == "earth-events":
            events = step.split("-")[1]
            source, recipe = earth_events.SOURCES[events], recipe_of_events("laptop", events)
            checksum = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
            assert result.settings == settings_of(step, "laptop")
            assert result.inputs == {source.file: source.sha256, "recipe": checksum}
