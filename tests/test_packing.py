"""What is sent to the browser: places, densities and the coastline survive their bytes."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from panels import apart_km, paths, places_of
from PIL import Image

from geoflow import runtime, sphere, widgets
from geoflow.viz import packing, player
from geoflow.viz.packing import Panel
from geoflow.viz.player import TrajectoryPlayer


@pytest.mark.parametrize("place", [(90.0, 0.0), (-90.0, 12.0), (0.0, 180.0), (0.0, -180.0), (12.3, 179.9999), (0.0, -0.001)])  # fmt: skip
def test_places_survive_the_bytes_within_350_metres(place):
    assert apart_km(places_of(TrajectoryPlayer(torch.tensor([[place]])))[0, 0], place) < 0.35


def test_panels_lie_one_after_the_other():
    first, second = paths(3, 5), paths(8, 2, seed=1)
    shown = TrajectoryPlayer({"a": first, "b": second})
    assert [panel["title"] for panel in shown.panels] == ["a", "b"]
    assert apart_km(places_of(shown, 0), first) < 0.35
    assert apart_km(places_of(shown, 1), second) < 0.35


def test_payload_is_within_its_budget():
    shown = TrajectoryPlayer(paths(80, 500))
    assert len(shown.data) == 4 * 81 * 500 < 350_000
    assert len(shown.land) + len(player.MODULE.encode()) + len(player.STYLE) < 300_000


def test_coastline_survives_the_bytes():
    numbers = np.frombuffer(packing.pack_land(), "<i2")
    rings, at = [], 0
    while at < len(numbers):
        count = int(numbers[at])
        rings.append(numbers[at + 1 : at + 1 + 2 * count].reshape(-1, 2) / 100)
        at += 1 + 2 * count
    polygons = json.loads((runtime.DATA / "land-110m.geojson").read_text())["coordinates"]
    expected = [np.array(ring)[:, ::-1] for polygon in polygons for ring in polygon]
    assert len(rings) == len(expected)
    assert all(
        np.allclose(ring, want, atol=0.0051) for ring, want in zip(rings, expected, strict=True)
    )


def test_density_levels_are_shares_of_the_peak():
    density = widgets.smoothed(sphere.from_latlon(torch.tensor([[10.0, 20.0]])).expand(10, 3))
    (described,), data, _ = packing.pack([Panel(torch.zeros(1, 0, 2), density=density)])
    raster = described["density"]
    shape = raster["rows"], raster["columns"]
    levels = np.frombuffer(data, np.uint8, shape[0] * shape[1], raster["start"]).reshape(shape)
    row, column = np.unravel_index(levels.argmax(), shape)
    assert levels.max() == 255
    assert abs(float(density.lat[row]) - 10) <= 1 and abs(float(density.lon[column]) - 20) <= 1
    assert levels[0].max() == 0  # at the pole there is less than the uniform density
    assert raster["peak"] == pytest.approx(
        float(density.log_density.max()) - sphere.LOG_UNIFORM, abs=1e-3
    )


def test_as_many_truths_as_maps():
    with pytest.raises(ValueError, match="2 truths for 3 maps"):
        packing.as_panels(torch.zeros(4, 3, 5, 2), truth=[(0, 0), (1, 1)])


def test_a_picture_survives_its_address():
    image = Image.new("RGB", (40, 30), (200, 10, 30))
    back = packing.read_upload(packing.data_url(image))
    assert (back.size, back.tobytes()) == (image.size, image.tobytes())


def upload(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def cut_off() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((60, 60), 50).save(buffer, "PNG")
    return buffer.getvalue()[:1000]


@pytest.mark.parametrize(
    "text", [upload(b"no image at all"), upload(b""), upload(cut_off()), "data:image/png;base64,????", "data:"]
)  # fmt: skip
def test_an_upload_that_is_no_image(text):
    with pytest.raises(ValueError, match="the uploaded file is no image that can be read"):
        packing.read_upload(text)
