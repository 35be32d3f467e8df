"""Explorers: what is sent to the browser, and callbacks, by setting values as a reader does."""

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from geoflow import Geolocator, cli, maps, samplers, schedules, settings, sphere, widgets
from geoflow.data import tiles
from geoflow.methods import How
from geoflow.velocity import VelocityTransformer
from geoflow.widgets import Panel, TrajectoryPlayer


@pytest.fixture(scope="module")
def geo() -> Geolocator:
    return Geolocator.from_pretrained("tiles")


def paths(steps: int, n: int, seed: int = 0) -> torch.Tensor:
    """(steps + 1, n, 2) random places."""
    return sphere.to_latlon(sphere.uniform((steps + 1, n), torch.Generator().manual_seed(seed)))


def places_of(player: TrajectoryPlayer, number: int = 0) -> torch.Tensor:
    """(states, n, 2) degrees, read from the bytes as the browser reads them."""
    panel = player.panels[number]
    shape = panel["states"], panel["count"], 2
    pairs = np.frombuffer(
        player.data, "<u2", 2 * panel["states"] * panel["count"], panel["start"]
    ).reshape(shape)
    return torch.from_numpy(pairs / [65535, 65536] * [180, 360] - [90, 180])


def upload(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


# Bytes


@pytest.mark.parametrize(
    "place",
    [(90.0, 0.0), (-90.0, 12.0), (0.0, 180.0), (0.0, -180.0), (12.3, 179.9999), (0.0, -0.001)],
)
def test_places_survive_the_bytes_within_350_metres(place):
    player = TrajectoryPlayer(torch.tensor([[place]]))
    back = places_of(player)[0, 0]
    assert (
        sphere.distance_km(
            *sphere.from_latlon(torch.stack([back, torch.tensor(place, dtype=back.dtype)]))
        )
        < 0.35
    )


def test_panels_lie_one_after_the_other():
    first, second = paths(3, 5), paths(8, 2, seed=1)
    player = TrajectoryPlayer({"a": first, "b": second})
    assert [panel["title"] for panel in player.panels] == ["a", "b"]
    for number, latlon in enumerate((first, second)):
        assert (
            sphere.distance_km(
                sphere.from_latlon(places_of(player, number)), sphere.from_latlon(latlon.double())
            ).max()
            < 0.35
        )


def test_payload_is_within_its_budget():
    player = TrajectoryPlayer(paths(80, 500))
    assert len(player.data) == 4 * 81 * 500 < 350_000
    assert len(player.land) + widgets.MODULE.stat().st_size < 300_000


def test_coastline_survives_the_bytes():
    numbers = np.frombuffer(widgets.pack_land(), "<i2")
    rings, at = [], 0
    while at < len(numbers):
        count = int(numbers[at])
        rings.append(numbers[at + 1 : at + 1 + 2 * count].reshape(-1, 2) / 100)
        at += 1 + 2 * count
    polygons = json.loads((settings.DATA / "land-110m.geojson").read_text())["coordinates"]
    expected = [np.array(ring)[:, ::-1] for polygon in polygons for ring in polygon]
    assert len(rings) == len(expected)
    assert all(
        np.allclose(ring, want, atol=0.0051) for ring, want in zip(rings, expected, strict=True)
    )


def test_density_levels_are_shares_of_the_peak():
    density = widgets.smoothed(sphere.from_latlon(torch.tensor([[10.0, 20.0]])).expand(10, 3))
    (described,), data, _ = widgets.pack([Panel(torch.zeros(1, 0, 2), density=density)])
    raster = described["density"]
    levels = np.frombuffer(
        data, np.uint8, raster["rows"] * raster["columns"], raster["start"]
    ).reshape(raster["rows"], raster["columns"])
    row, column = np.unravel_index(levels.argmax(), levels.shape)
    assert levels.max() == 255
    assert abs(float(density.lat[row]) - 10) <= 1 and abs(float(density.lon[column]) - 20) <= 1
    assert levels[0].max() == 0  # at the pole there is less than the uniform density
    assert raster["peak"] == pytest.approx(
        float(density.log_density.max()) - sphere.LOG_UNIFORM, abs=1e-3
    )


def test_smoothed_samples_integrate_to_one(generator):
    density = widgets.smoothed(sphere.uniform(50, generator))
    area = torch.deg2rad(torch.tensor(2.0)) ** 2 * torch.cos(torch.deg2rad(density.lat))
    assert float((density.log_density.exp() * area[:, None]).sum()) == pytest.approx(1, abs=0.01)


# Bad input: a message in the widget, never a blank cell


def test_points_that_are_nan_are_left_out_and_counted():
    latlon = paths(4, 10)
    latlon[2, 3] = torch.nan
    latlon[4, 7] = torch.inf
    player = TrajectoryPlayer(latlon)
    assert player.panels[0]["count"] == 8
    assert "2 of 10 points are NaN or infinite somewhere" in player.message


@pytest.mark.parametrize(
    ("trajectories", "message"),
    [
        (torch.full((3, 4, 2), torch.nan), "4 of 4 points are NaN"),
        (torch.zeros(5, 2), "shape (5, 2); expected (steps + 1, n, 2)"),
        (torch.zeros(0, 4, 2), "shape (0, 4, 2)"),
        (torch.full((3, 4, 2), 91.0), "latitude 91.0 is not in [-90, 90]"),
        (None, "NoneType"),
        ({}, "no panels"),
    ],
)
def test_what_cannot_be_drawn_is_said(trajectories, message):
    assert message in TrajectoryPlayer(trajectories).message


def test_times_that_do_not_fit_are_said():
    assert (
        "expected one finite time for each" in TrajectoryPlayer(paths(3, 2), times=[0, 1]).message
    )


def test_as_many_truths_as_maps():
    assert (
        "2 truths for 3 maps"
        in TrajectoryPlayer(torch.zeros(4, 3, 5, 2), truth=[(0, 0), (1, 1)]).message
    )


@pytest.mark.parametrize("wrong", [dict(projection="globus"), dict(trails="shrot")])
def test_wrong_options_raise(wrong):
    with pytest.raises(ValueError, match="did you mean"):
        TrajectoryPlayer(paths(1, 1), **wrong)


# Answers


def echo(values):
    yield [Panel(torch.zeros(2, 1, 2), title=f"{values['steps']} {values['kind']}")]


def asking(answer=echo) -> TrajectoryPlayer:
    controls = [
        widgets.number("steps", "steps", [1, 2, 256]),
        widgets.choice("kind", "kind", ["a", "b"]),
    ]
    return TrajectoryPlayer(controls=controls, values={"steps": 2, "kind": "a"}, answer=answer)


def test_a_new_value_is_answered():
    player = asking()
    assert player.panels[0]["title"] == "2 a"
    player.select(steps=7)
    assert player.panels[0]["title"] == "7 a"


def test_a_question_from_the_browser_is_answered_once_and_numbered():
    asked = []
    player = asking(lambda values: asked.append(values) or echo(values))
    player.set_state({"values": {"steps": 1, "kind": "b"}, "asked": 1})
    assert asked == [{"steps": 2, "kind": "a"}, {"steps": 1, "kind": "b"}]
    assert (player.panels[0]["title"], player.answered) == ("1 b", 1)
    player.set_state(
        {"asked": 2}
    )  # the same values again are a question too: somebody waits for the answer
    assert (len(asked), player.answered) == (3, 2)


def test_an_answer_is_one_message_and_comes_before_its_number(monkeypatch):
    def answer(values):
        yield [Panel(torch.full((2, 1, 2), float(values["steps"])), title=f"{values['steps']}")]

    player, sent = asking(answer), []
    monkeypatch.setattr(player, "_send", lambda message, buffers=None: sent.append(message))
    player.set_state({"values": {"steps": 1, "kind": "b"}, "asked": 1})
    updates = [
        set(message["state"]) | {path[0] for path in message["buffer_paths"]}
        for message in sent
        if message["method"] == "update"
    ]
    assert updates == [{"panels", "data"}, {"answered"}]


@pytest.mark.parametrize("steps", [0, 257, 2.5, "three", True, float("nan")])
def test_wrong_numbers_are_said_and_raised_and_the_player_goes_on(steps):
    player = asking()
    with pytest.raises(ValueError, match="expected a whole number from 1 to 256"):
        player.select(steps=steps)
    assert "expected a whole number from 1 to 256" in player.message
    assert player.panels[0]["title"] == "2 a"
    player.select(steps=3)
    assert (player.message, player.panels[0]["title"]) == ("", "3 a")


def test_a_callback_that_raises_shows_its_message_and_is_raised():
    def broken(values):
        if values["kind"] == "b":
            raise RuntimeError("the model fell over")
        yield from echo(values)

    player = asking(broken)
    with pytest.raises(RuntimeError, match="fell over"):
        player.set_state({"values": {"steps": 1, "kind": "b"}, "asked": 4})
    assert (player.message, player.answered) == ("the model fell over", 4)


def test_unknown_controls_are_named():
    with pytest.raises(ValueError, match="unknown control 'step' .did you mean 'steps'"):
        asking().select(step=3)


# Explorers


def test_timesteps(geo):
    player = widgets.explore_timesteps(geo, n=40)
    assert (
        "32 evaluations" in player.panels[0]["note"] and "median error" in player.panels[0]["note"]
    )
    player.select(image="taiga", steps=4, solver="euler", guidance=1.0, schedule="linear")
    panel = player.panels[0]
    assert panel["note"].startswith(f"{samplers.evaluations('euler', 4)} evaluations")
    assert (panel["states"], panel["times"], panel["truth"]) == (
        5,
        [0, 0.25, 0.5, 0.75, 1],
        [61.0, 97.0],
    )
    straight = widgets.with_schedule(geo, "linear")
    expected = straight.trajectories(
        tiles.tile(61, 97), n=40, steps=4, solver="euler", guidance=1.0, seed=0
    )[:, 0]
    assert (
        sphere.distance_km(
            sphere.from_latlon(places_of(player)), sphere.from_latlon(expected.double())
        ).max()
        < 0.35
    )


def test_many_steps_are_thinned_to_even_states(geo):
    states, times = widgets.flow(geo, geo.embed(tiles.tile(61, 97)), 5, How(160, "euler"))
    assert torch.equal(times, schedules.time_grid(geo.schedule, 160)[::2])
    assert states.shape == (81, 5, 2)


def test_the_error_is_that_of_the_same_points(geo):
    cond = geo.embed(tiles.tile(61, 97))
    fine = widgets._fine(geo, 100, 0)(cond, 0.0)
    coarse = geo.sample(cond=cond, n=100, steps=64, seed=0)[0]
    assert (
        widgets.median_error_km(geo, cond, coarse, fine) < 0.5
    )  # other points would be hundreds of kilometres off
    assert (
        widgets.median_error_km(geo, cond, geo.sample(cond=cond, n=100, steps=2, seed=0)[0], fine)
        > 20
    )


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
        schedules.FEW_STEPS,
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
    buffer = io.BytesIO()
    tiles.tile(61, 97).save(buffer, "PNG")
    player.select(image=upload(buffer.getvalue()))
    mine = player.panels[0]
    assert mine["truth"] is None and mine["image"].startswith("data:image/png")
    assert (
        sphere.distance_km(*sphere.from_latlon(torch.tensor([mine["best"][0], [61.0, 97.0]])))
        < 1500
    )


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
    player = widgets.explore_density(Geolocator(None, "uniform"), n=2000)
    assert "localizability -3.7 bits" in player.panels[0]["note"]


@pytest.mark.parametrize(
    "text", [upload(b"no image at all"), upload(b""), "data:image/png;base64,????", "data:"]
)
def test_an_upload_that_is_no_image(geo, text):
    player = widgets.explore_guidance(geo, n=4)
    with pytest.raises(ValueError, match="no image"):
        player.select(image=text)
    assert "the uploaded file is no image that can be read" in player.message


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
    middle = places_of(player)[40, 0]
    assert (
        sphere.distance_km(
            *sphere.from_latlon(
                torch.stack([middle, torch.tensor([45.0, 0.0], dtype=torch.float64)])
            )
        )
        < 0.5
    )
    with pytest.raises(ValueError, match="latitude 95"):
        player.select(x=[95.0, 0.0])
    assert "latitude 95" in player.message


# Without a kernel


@pytest.fixture(scope="module")
def small_atlas(geo):
    models = {"flow": geo, "vMF": Geolocator.from_pretrained("tiles-vmf")}
    return widgets.atlas(models, n=6, steps=(1, 3), guidances=(0.0, 2.0))


def test_atlas_answers_every_choice(small_atlas, geo):
    options = {control["name"]: control["options"] for control in small_atlas.controls}
    assert set(options["method"]) == {"flow", "vMF", widgets.ALL_SIX}
    keys = {
        f"{i}|{m}|{s}|{g:g}"
        for i in options["image"]
        for m in options["method"]
        for s in options["steps"]
        for g in options["guidance"]
    }
    assert set(small_atlas.table) == keys
    (number,) = small_atlas.table["taiga|flow|3|2"]
    expected = geo.sample(tiles.tile(61, 97), n=6, steps=3, guidance=2.0, seed=0)[0]
    assert (
        sphere.distance_km(
            sphere.from_latlon(places_of(small_atlas, number)[-1]),
            sphere.from_latlon(expected.double()),
        ).max()
        < 0.35
    )


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
    def random_flow(geo, cond, n, how, seed=0):
        states = how.steps + 1 if geo.model.guidable else 1
        return paths(states - 1, n), torch.linspace(0, 1, states)

    monkeypatch.setattr(widgets, "flow", random_flow)
    assert len(widgets.atlas().to_html().encode()) < 6_000_000


def test_command_writes_the_page(monkeypatch, small_atlas, tmp_path, capsys):
    monkeypatch.setattr(widgets, "atlas", lambda n, seed: small_atlas)
    cli.explore(tmp_path / "explore.html")
    assert "press play" in (tmp_path / "explore.html").read_text()
    assert "explore.html: 0." in capsys.readouterr().out


def test_output_of_a_notebook_holds_the_page_on_request():
    bundle, _ = TrajectoryPlayer(paths(1, 2))._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle and "text/html" not in bundle
    bundle, _ = TrajectoryPlayer(paths(1, 2), keep=True)._repr_mimebundle_()
    assert "iframe" in bundle["text/html"]


def test_embedded_page_is_escaped():
    frame = TrajectoryPlayer(paths(2, 3)).embed(300).data
    assert (
        frame.count("<iframe") == 1
        and frame.count("<script") == 0
        and "&lt;script" in frame
        and "height: 300px" in frame
    )


@pytest.mark.parametrize(
    ("player", "axes"),
    [
        (lambda: TrajectoryPlayer(paths(4, 20), truth=(10, 20), best=[(11, 21), (0, 0)]), 4),
        (lambda: TrajectoryPlayer({"a": paths(4, 20), "b": paths(0, 9)}), 8),
        (
            lambda: TrajectoryPlayer(
                [Panel(torch.zeros(1, 0, 2), density=widgets.smoothed(sphere.uniform(5)))]
            ),
            1,
        ),
        (widgets.explore_sphere, 2),
    ],
)
def test_contact_sheet(player, axes):
    figure = player().contact_sheet()
    assert isinstance(figure, maps.MapFigure)
    assert len(figure.axes) == axes
    figure.canvas.draw()
