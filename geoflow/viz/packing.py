"""What a player shows, as panels, and the bytes that a browser gets of them."""

import base64
import functools
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from geoflow import runtime, sphere
from geoflow.viz import maps

THUMBNAIL = 64  # pixels


@dataclass(frozen=True)
class Panel:
    """What one map shows.

    Attributes:
        trajectories: (steps + 1, n, 2) latitude and longitude in degrees, noise first; a single
            state is drawn as points that rest.
        title, note: texts above the map.
        times: (steps + 1,) times of the states, 0 (noise) to 1 (data); None: equally spaced.
        truth: latitude and longitude of the true place.
        best: (k, 2) best places, best first.
        image: the PIL image that the points should find.
        density: a `geoflow.density.Raster`, in place of or below points.
        color: which of the six colours; None: by the panel's number.
        moved_by_hand: the reader drags the ends of the one path, see `widgets.explore_sphere`.
    """

    trajectories: Any
    title: str = ""
    note: str = ""
    times: Any = None
    truth: Any = None
    best: Any = None
    image: Image.Image | None = None
    density: Any = None
    color: int | None = None
    moved_by_hand: bool = False


def as_panels(
    trajectories, times=None, truth: Any = None, best: Any = None, images=None, titles=None
) -> list[Panel]:
    """Panels of what `TrajectoryPlayer` takes.

    Raises:
        ValueError: another shape, or not as many truths, images, … as maps.
    """
    given = trajectories if isinstance(trajectories, (list, tuple)) else ()
    if given and all(isinstance(item, Panel) for item in given):
        return list(given)
    if isinstance(trajectories, Mapping):
        titles, paths = list(trajectories), list(trajectories.values())
    else:
        paths = _paths(trajectories)

    def each(what: str, values, one: bool) -> list:
        if values is None or one:
            return [values] * len(paths)
        if len(values) != len(paths):
            raise ValueError(f"{len(values)} {what} for {len(paths)} maps; expected one for each")
        return list(values)

    columns = (
        each("titles", titles, isinstance(titles, str)),
        each("truths", truth, np.ndim(truth) == 1),
        each("best places", best, np.ndim(best) == 2),
        each("images", images, isinstance(images, Image.Image)),
    )
    return [
        Panel(path, title or "", times=times, truth=place, best=places, image=image)
        for path, title, place, places, image in zip(paths, *columns, strict=True)
    ]


def _paths(trajectories) -> list[Tensor]:
    """The trajectories of each map: (steps + 1, n, 2) of one, or (steps + 1, B, n, 2) of B maps."""
    try:
        array = torch.as_tensor(trajectories)
    except (RuntimeError, TypeError, ValueError) as error:
        kind = type(trajectories).__name__
        raise ValueError(
            f"trajectories are a {kind}; expected numbers (steps + 1, n, 2)"
        ) from error
    if array.ndim not in (3, 4) or array.shape[-1] != 2:
        expected = "expected (steps + 1, n, 2) or (steps + 1, B, n, 2), degrees"
        raise ValueError(f"trajectories have shape {tuple(array.shape)}; {expected}")
    return [array] if array.ndim == 3 else list(array.unbind(1))


def pack(panels: Sequence[Panel]) -> tuple[list[dict], bytes, str]:
    """What the browser needs of panels.

    Points that are not finite in some state are left out.

    >>> described, data, complaint = pack([Panel(torch.zeros(3, 5, 2), "five points")])
    >>> described[0]["title"], described[0]["count"], len(data), complaint
    ('five points', 5, 60, '')

    Returns:
        A description of each panel, the bytes that it refers to, and a sentence about points that
        were left out. The bytes of a panel begin at `start`: states × count pairs as `quantise`
        makes them. Those of its density begin at `density.start`: rows × columns of uint8, 0 for
        uniform or less, 255 for its peak, in equal steps of log-density, from 90° N, 180° W.

    Raises:
        ValueError: no panels, wrong shapes, or places or times out of range.
    """
    if not panels:
        raise ValueError("no panels; expected at least one")
    described, data, missing = [], bytearray(), []
    for number, panel in enumerate(panels):
        latlon, times = checked(panel)
        whole = latlon.isfinite().all(-1).all(0)
        if not whole.all():
            title = f"{panel.title}: " if panel.title else ""
            lost = f"{int((~whole).sum())} of {len(whole)} points"
            missing.append(f"{title}{lost} are NaN or infinite somewhere")
        start = len(data)
        data += quantise(latlon[:, whole])
        described.append(
            {
                "title": panel.title,
                "note": panel.note,
                "states": len(latlon),
                "count": int(whole.sum()),
                "start": start,
                "times": times.round(6).tolist(),
                "truth": rounded(panel.truth)[0] if panel.truth is not None else None,
                "best": rounded(panel.best) if panel.best is not None else None,
                "image": data_url(panel.image) if panel.image is not None else None,
                "color": number if panel.color is None else panel.color,
                "sphere": panel.moved_by_hand,
            }
        )
        if panel.density is not None:
            levels, peak = _levels(panel.density)
            size = dict(zip(("rows", "columns"), levels.shape, strict=True))
            described[-1]["density"] = {**size, "start": len(data), "peak": round(peak, 3)}
            data += levels.tobytes()
            data += bytes(len(data) % 2)
    return described, bytes(data), f"{'; '.join(missing)}: left out." if missing else ""


def checked(panel: Panel) -> tuple[Tensor, np.ndarray]:
    """The trajectories of a panel, (states, n, 2), and their times, (states,)."""
    latlon = torch.as_tensor(panel.trajectories, dtype=torch.float64).detach().cpu()
    if latlon.ndim != 3 or latlon.shape[-1] != 2 or not len(latlon):
        expected = "expected (steps + 1, n, 2), latitude and longitude"
        raise ValueError(f"trajectories have shape {tuple(latlon.shape)}; {expected}")
    times = np.linspace(0, 1, len(latlon))
    if panel.times is not None:
        times = np.asarray(panel.times, dtype=float)
    if times.shape != (len(latlon),) or not np.isfinite(times).all():
        expected = "expected one finite time for each"
        raise ValueError(f"times {times.shape} of {len(latlon)} states; {expected}")
    return latlon, times


def quantise(latlon) -> bytes:
    """Places as uint16 pairs, little-endian: latitudes to 0.0014°, longitudes to 0.0027°, 0.3 km.

    Args:
        latlon: (..., 2) degrees.

    Raises:
        ValueError: a latitude or longitude out of range.
    """
    places = sphere.to_latlon(sphere.from_latlon(torch.as_tensor(latlon, dtype=torch.float64)))
    lat = ((places[..., 0] + 90) / 180 * 65535).round()
    lon = ((places[..., 1] + 180) / 360 * 65536).round() % 65536
    return torch.stack([lat, lon], -1).numpy().astype("<u2").tobytes()


def rounded(latlon) -> list[list[float]]:
    """Checked places, rounded for JSON."""
    places = torch.as_tensor(latlon, dtype=torch.float64).detach().cpu()
    checked = sphere.to_latlon(sphere.from_latlon(places)).reshape(-1, 2).tolist()
    return [[round(degrees, 4) for degrees in place] for place in checked]


def _levels(density) -> tuple[np.ndarray, float]:
    """(rows, columns) uint8, as `pack` describes them, and the peak in nats over uniform."""
    peak = maps.peak_of(density)
    nats = np.asarray(density.log_density, dtype=float) - sphere.LOG_UNIFORM
    return np.clip(255 * nats / peak, 0, 255).astype(np.uint8), peak


@functools.lru_cache(maxsize=1)
def pack_land() -> bytes:
    """The coastline as int16, little-endian.

    For each ring its length, then its (latitude, longitude) in hundredths of degrees.
    """
    polygons = json.loads((runtime.DATA / "land-110m.geojson").read_text())["coordinates"]
    rings = [np.array(ring) for polygon in polygons for ring in polygon]
    parts = [[[len(ring)], (100 * ring[:, ::-1]).round().ravel()] for ring in rings]
    return b"".join(np.concatenate(part).astype("<i2").tobytes() for part in parts)


def data_url(image: Image.Image) -> str:
    """A small picture as the text that an <img> takes."""
    small = image.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def read_upload(text: str) -> Image.Image:
    """The image of a data: address, as browsers send a file.

    Raises:
        ValueError: it is no image.
    """
    try:
        image = Image.open(io.BytesIO(base64.b64decode(text.split(",", 1)[1])))
        image.load()
    except (OSError, ValueError, IndexError, SyntaxError, Image.DecompressionBombError) as error:
        kind = type(error).__name__
        raise ValueError(f"the uploaded file is no image that can be read ({kind})") from error
    return image.convert("RGB")
