"""Explorers: what a reader's choices compute, by setting values as a reader does."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from panels import apart_km, paths, places_of
from PIL import Image

from geoflow import Geolocator, samplers, schedules, sphere, widgets
from geoflow.cli import photos
from geoflow.data import tiles
from geoflow.flowmap.network import FlowMapTransformer
from geoflow.methods import SolverOptions
from geoflow.velocity import VelocityTransformer
from geoflow.viz import browser, packing
from geoflow.viz.packing import Panel
from geoflow.viz.player import page as page_of


@pytest.fixture(scope="module")
def geo() -> Geolocator:
    return Geolocator.from_pretrained("tiles")


def test_timesteps(geo):
    player = widgets.explore_timesteps(geo, n=40)
    assert (
        "32 evaluations" in player.panels[0]["note"]
        and "solver's error" in player.panels[0]["note"]
    )
    player.select(image="taiga", steps=4, solver="euler", guidance=1.0, schedule="linear")
    panel = player.panels[0]
    assert panel["note"].startswith(f"2 × {samplers.evaluations('euler', 4)} evaluations")
    assert (panel["states"], panel["times"], panel["truth"]) == (
        5,
        [0, 0.25, 0.5, 0.75, 1],
        [61.0, 97.0],
    )
    straight = widgets.with_schedule(geo, "linear")
    expected = straight.trajectories(
        tiles.tile(61, 97), n=40, steps=4, solver="euler", guidance=1.0, seed=0
    )[:, 0]
    assert apart_km(places_of(player), expected) < 0.35


def test_the_solver_jump_is_a_flow_map_of_the_model(geo):
    flow_map = Geolocator.from_pretrained("tiles-flow-map")
    player = widgets.explore_timesteps(geo, flow_map=flow_map, n=40)
    given = dict(n=40, steps=2, guidance=2.0, seed=0)
    player.select(image="taiga", steps=2, guidance=2.0, solver="jump")
    expected = flow_map.trajectories(tiles.tile(61, 97), **given)[:, 0]
    assert apart_km(places_of(player), expected) < 0.35
    assert player.panels[0]["note"].startswith("2 evaluations · solver's error")
    player.select(solver="euler")
    assert player.panels[0]["note"].startswith("2 × 2 evaluations")
    with pytest.raises(ValueError, match="expected 0 to 4, in which it was trained"):
        player.select(solver="jump", guidance=5.0)
    assert "guidance of 5 with method 'flow-map'" in player.message
    assert "jump" in widgets.explore_timesteps(n=1).controls[2]["options"]
    assert "jump" not in widgets.explore_timesteps(geo, n=1).controls[2]["options"]


def test_a_flow_map_jumps_beside_other_methods_and_has_its_own_range_of_guidance(geo):
    flow_map = Geolocator.from_pretrained("tiles-flow-map")
    player = widgets.compare_methods({"flow": geo, "map": flow_map}, tiles.tile(61, 97), n=8)
    player.select(steps=1)
    expected = flow_map.sample(tiles.tile(61, 97), n=8, seed=0)[0]
    assert apart_km(places_of(player, 1)[-1], expected) < 0.35
    guidance = widgets.explore_guidance(flow_map, n=4).controls[1]["options"]
    assert max(guidance) == 4.0


def test_many_steps_are_thinned_to_even_states(geo):
    points = widgets.Points(geo, widgets.Gallery(tiles.tile(61, 97)), n=5, seed=0)
    panel = points.panel("image 1", SolverOptions(160, "euler"))
    assert torch.equal(panel.times, schedules.time_grid(geo.schedule, 160)[::2])
    assert panel.trajectories.shape == (81, 5, 2)


def test_the_error_is_that_of_the_same_points(geo):
    points = widgets.Points(geo, widgets.Gallery(tiles.tile(61, 97)), n=100, seed=0)
    reference = points.reference("image 1")

    def error(steps: int, number: int = 0) -> float:
        panel = replace(points, seed=number).panel("image 1", SolverOptions(steps))
        words = widgets._with_error(panel, reference).note
        return float(
            re.fullmatch(r"solver's error (?:below )?([\d,.]+) km \(median\)", words)[1].replace(
                ",", ""
            )
        )

    assert error(32) < 2
    assert error(2) > 20
    assert error(32, number=1) > 50  # other points


def test_guidance_gathers_the_points(geo):
    player = widgets.explore_guidance(geo, n=100)
    player.select(guidance=5.0)

    def radius(note: str) -> float:
        return float(re.search(r"([\d,]+) km", note)[1].replace(",", ""))

    assert [panel["title"] for panel in player.panels] == ["ω = 0", "ω = 5"]
    assert radius(player.panels[1]["note"]) < radius(player.panels[0]["note"]) / 2


def test_schedules_in_step(geo):
    player = widgets.explore_schedule(geo, n=20)
    assert [panel["title"] for panel in player.panels] == [
        *schedules.SCHEDULES,
        *schedules.SAMPLING,
    ]
    assert player.panels[0]["times"] == pytest.approx(np.linspace(0, 1, 9), abs=1e-6)
    player.select(steps=3)
    assert all(panel["states"] == 4 for panel in player.panels)


def test_six_methods_in_step():
    player = widgets.compare_methods(n=15)
    assert [panel["title"] for panel in player.panels] == list(widgets.SIX)
    assert [panel["states"] for panel in player.panels] == [17, 17, 17, 1, 1, 1]
    player.select(guidance=2.0, steps=2)
    assert [panel["states"] for panel in player.panels] == [3, 3, 3, 1, 1, 1]


def test_methods_beside_ones_own(geo):
    player = widgets.compare_methods(
        {"mine": geo, "nothing known": Geolocator(None, "uniform")},
        tiles.tile(24, 6),
        (24.0, 6.0),
        n=8,
    )
    assert [(panel["title"], panel["truth"]) for panel in player.panels] == [
        ("mine", [24.0, 6.0]),
        ("nothing known", [24.0, 6.0]),
    ]


def test_density_of_samples_and_of_an_upload(geo):
    player = widgets.explore_density(geo, n=64, k=2)
    first = player.panels[0]
    assert (
        "localizability" in first["note"]
        and len(first["best"]) == 2
        and first["truth"] == [-38.0, -110.0]
    )
    player.select(image=packing.data_url(tiles.tile(61, 97)))
    mine = player.panels[0]
    assert mine["truth"] is None and mine["image"].startswith("data:image/png")
    assert apart_km(mine["best"][0], (61.0, 97.0)) < 1500


def test_an_upload_that_is_no_image_is_told_to_the_reader(geo):
    player = widgets.explore_guidance(geo, n=4)
    with pytest.raises(ValueError, match="no image"):
        player.select(image="data:")
    assert "the uploaded file is no image that can be read" in player.message


def test_exact_density_on_request():
    player = widgets.explore_density(Geolocator.from_pretrained("tiles-vmf"), n=64)
    assert "∫p" not in player.panels[0]["note"]
    player.select(density="exact")
    assert float(player.panels[0]["note"].split("∫p = ")[1]) == pytest.approx(1, abs=0.01)
    assert (player.panels[0]["density"]["rows"], player.panels[0]["density"]["columns"]) == (
        180,
        360,
    )


def test_density_of_a_model_that_looks_at_nothing():
    player = widgets.explore_density(Geolocator(None, "uniform"), n=500)
    assert "localizability -3.7 bits" in player.panels[0]["note"]


def test_any_network_and_an_image_of_ones_own(tmp_path):
    torch.manual_seed(0)
    encoder = Geolocator.from_pretrained("tiles").encoder
    network = VelocityTransformer(
        cond_dim=encoder.embed(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape[1],
        dim=16,
        depth=1,
    )
    Image.new("RGB", (50, 40)).save(tmp_path / "mine.png")
    player = widgets.explore_guidance(
        Geolocator(network, encoder=encoder), tmp_path / "mine.png", n=5
    )
    assert player.values["image"] == "mine" and player.message == ""


def test_a_closed_form_has_no_timesteps():
    with pytest.raises(ValueError, match="closed form"):
        widgets.explore_timesteps(Geolocator.from_pretrained("tiles-vmf"))


def test_sphere_explorer_carries_the_geodesic():
    player = widgets.explore_sphere((0, 0), (0, 90))
    player.select(y=[90.0, 0.0])
    assert apart_km(places_of(player)[40, 0], (45.0, 0.0)) < 0.5
    with pytest.raises(ValueError, match="latitude 95"):
        player.select(x=[95.0, 0.0])
    assert "latitude 95" in player.message


def test_smoothed_samples_integrate_to_one(generator):
    density = widgets.smoothed(sphere.uniform(50, generator))
    area = torch.deg2rad(torch.tensor(2.0)) ** 2 * torch.cos(torch.deg2rad(density.lat))
    assert float((density.log_density.exp() * area[:, None]).sum()) == pytest.approx(1, abs=0.01)


# Without a kernel


@pytest.fixture(scope="module")
def small_atlas(geo):
    models = {"flow": geo, "vMF": Geolocator.from_pretrained("tiles-vmf")}
    return widgets.atlas(models, n=6, steps=(1, 3), guidances=(0.0, 2.0))


def test_a_map_for_the_browser_carries_its_weights_and_what_it_makes_of_each_image(geo):
    flow_map = Geolocator.from_pretrained("tiles-flow-map")
    shown = widgets.explore_jumps(flow_map, tiles.tile(61, 97), (61.0, 97.0), n=20)
    assert shown.jumps["truths"] == [[61.0, 97.0]]
    assert shown.jumps["times"]["1"] == [0.0, 1.0]
    start, shape = (shown.jumps["tensors"]["head.bias"][name] for name in ("start", "shape"))
    bias = np.frombuffer(shown.network, "<f2", shape[0], start)
    assert bias[:-1] == pytest.approx(flow_map.network.head.bias.detach().numpy(), rel=1e-3)
    assert bias[-1] == 0
    expected = flow_map.sample(tiles.tile(61, 97), n=20, seed=0)[0]
    assert apart_km(places_of(shown)[-1], expected) < 0.35
    with pytest.raises(ValueError, match="method 'riemannian'; expected 'flow-map'"):
        widgets.explore_jumps(geo)
    plain = FlowMapTransformer(8, dim=16, depth=1)
    with pytest.raises(ValueError, match="expected cond_dim, fourier, guess and no octaves"):
        browser.pack_map(Geolocator(plain, "flow-map"), torch.zeros(1, 8))


def test_atlas_answers_every_choice(small_atlas, geo):
    options = {control["name"]: control["options"] for control in small_atlas.controls}
    assert set(options["method"]) == {"flow", "vMF", widgets.ALL_SIX}
    keys = {
        f"{i}|{m}|{s}|{g:g}"
        for i, m, s, g in itertools.product(
            *(options[name] for name in ("image", "method", "steps", "guidance"))
        )
    }
    assert set(small_atlas.table) == keys
    (number,) = small_atlas.table["taiga|flow|3|2"]
    expected = geo.sample(tiles.tile(61, 97), n=6, steps=3, guidance=2.0, seed=0)[0]
    assert apart_km(places_of(small_atlas, number)[-1], expected) < 0.35


def test_a_page_holds_everything_and_refers_to_nothing(small_atlas, tmp_path):
    page = small_atlas.save_html(
        tmp_path / "folder" / "page.html", "A <title>", "Text & more"
    ).read_text()
    assert "A &lt;title&gt;" in page and "Text &amp; more" in page
    assert (
        re.findall(
            r"""(?:https?:)?//[a-z0-9-]+\.[a-z]|\bimport\b[ (]|\bsrc\s*=\s*["'](?!data)|href="(?!data:)""",
            re.sub(r'base64,[^"]*', "", page),
        )
        == []
    )
    assert page.count("<script") == page.count("</script>") == 1
    assert not list(tmp_path.rglob("*.partial"))


def test_full_size_page_stays_under_six_megabytes(monkeypatch):
    def random_panel(points, image, options, **shown):
        states = options.steps + 1 if points.geo.model.guidable else 1
        return Panel(paths(states - 1, points.n), **shown)

    monkeypatch.setattr(widgets.Points, "panel", random_panel)
    hundred = photos._hundred_tiles(seed=0)
    assert len(hundred.jumps["truths"]) == 100
    whole = page_of({"six methods": widgets.atlas(), "flow map": hundred})
    assert len(whole.encode()) < 6_000_000


def test_command_writes_the_page(monkeypatch, small_atlas, tmp_path, capsys):
    monkeypatch.setattr(widgets, "atlas", lambda n, seed: small_atlas)
    monkeypatch.setattr(photos, "_hundred_tiles", lambda seed: small_atlas)
    photos.explore(tmp_path / "explore.html")
    assert "press play" in (tmp_path / "explore.html").read_text()
    assert "explore.html: 0." in capsys.readouterr().out
