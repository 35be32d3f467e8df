"""The panels that a player shows, and the bytes that it sends to the browser.

Wrong shapes and numbers, and places out of range, raise a `ValueError` that names the value.
"""

import base64
import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from geoflow import sphere
from geoflow.viz import basemap, maps


@dataclass(frozen=True)
class Panel:
    """What one map shows."""

    trajectories: Any  # (states, n, 2) degrees, noise first; a single state: points that stay put
    title: str = ""  # above the map
    note: str = ""  # beside the title
    times: Any = None  # (states,) from 0 (noise) to 1 (data); None: equally spaced
    # Steps of the solver; None: one fewer than the states, of which none is left out.
    steps: int | None = None
    truth: Any = None  # latitude and longitude of the true place
    best: Any = None  # (k, 2) best places, best first
    image: Image.Image | None = None  # the image whose place is asked for
    density: Any = None  # a `geoflow.density.Raster`, in place of or below points
    color: int | None = None  # which of the six colours; None: by the panel's number
    moved_by_hand: bool = False  # the reader drags the ends, see `widgets.explore_sphere`


def as_panels(
    trajectories, times=None, truth: Any = None, best: Any = None, images=None, titles=None
) -> list[Panel]:
    """Panels of what `TrajectoryPlayer` takes."""
    given = trajectories if isinstance(trajectories, (list, tuple)) else ()
    if given and all(isinstance(item, Panel) for item in given):
        return list(given)
    if isinstance(trajectories, Mapping):
        titles, paths = list(trajectories), list(trajectories.values())
    else:
        paths = _paths(trajectories)
    columns = []
    for what, values, one_for_all in (
        ("titles", titles, isinstance(titles, str)),
        ("truths", truth, np.ndim(truth) == 1),
        ("best places", best, np.ndim(best) == 2),
        ("images", images, isinstance(images, Image.Image)),
    ):
        columns.append([values] * len(paths) if values is None or one_for_all else values)
        if len(columns[-1]) != len(paths):
            count = len(columns[-1])
            raise ValueError(f"{count} {what} for {len(paths)} maps; expected one for each")
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
        expected = "expected numbers (steps + 1, n, 2)"
        raise ValueError(f"trajectories are a {kind}; {expected}") from error
    if array.ndim not in (3, 4) or array.shape[-1] != 2:
        expected = "expected (steps + 1, n, 2) or (steps + 1, B, n, 2), degrees"
        raise ValueError(f"trajectories have shape {tuple(array.shape)}; {expected}")
    return [array] if array.ndim == 3 else list(array.unbind(1))


def pack(panels: Sequence[Panel]) -> tuple[list[dict], bytes, str]:
    """A description of each panel, the bytes that it refers to, and a sentence on what is left out.

    The bytes of a panel begin at `start`: states × count pairs as `quantise` makes them, of the
    points that are finite in every state. Those of its density begin at `density.start`:
    rows × columns of uint8, 0 for uniform or less, 255 for its peak, in equal steps of
    log-density, from 90° N, 180° W.
    """
    if not panels:
        raise ValueError("no panels; expected at least one")
    described, data, missing = [], bytearray(), []
    for number, panel in enumerate(panels):
        latlon, times = maps.checked(panel.trajectories, panel.times, least=1)
        whole = latlon.isfinite().all(-1).all(0)
        if not whole.all():
            title = f"{panel.title}: " if panel.title else ""
            lost = f"{int((~whole).sum())} of {len(whole)} points"
            missing.append(f"{title}{lost} are NaN or infinite somewhere")
        words = {"title": panel.title, "note": panel.note}
        steps = len(latlon) - 1 if panel.steps is None else panel.steps
        size = {"states": len(latlon), "steps": steps, "count": int(whole.sum())}
        size["start"] = len(data)
        shown = {
            "times": times.round(6).tolist(),
            "truth": rounded(panel.truth)[0] if panel.truth is not None else None,
            "best": rounded(panel.best) if panel.best is not None else None,
            "image": data_url(panel.image) if panel.image is not None else None,
            "color": number if panel.color is None else panel.color,
            "sphere": panel.moved_by_hand,
        }
        described.append(words | size | shown)
        data += quantise(latlon[:, whole])
        if panel.density is not None:
            peak = maps.peak_of(panel.density)
            nats = np.asarray(panel.density.log_density, dtype=float) - sphere.LOG_UNIFORM
            levels = np.clip(255 * nats / peak, 0, 255).astype(np.uint8)
            size = dict(zip(("rows", "columns"), levels.shape, strict=True))
            described[-1]["density"] = {**size, "start": len(data), "peak": round(peak, 3)}
            data += levels.tobytes()
            data += bytes(len(data) % 2)
    return described, bytes(data), f"{'; '.join(missing)}: left out." if missing else ""


def quantise(latlon) -> bytes:
    """Places as uint16 pairs, little-endian: latitude to 0.0014°, longitude to 0.0027°, 0.3 km."""
    lat, lon = basemap.latlon_of(latlon).T
    pairs = (lat + 90) / 180 * 65535, (lon + 180) / 360 * 65536
    return (np.stack(pairs, axis=-1).round() % 65536).astype("<u2").tobytes()


def rounded(latlon) -> list[list[float]]:
    """Checked places, rounded for JSON."""
    return basemap.latlon_of(latlon).round(4).tolist()


@functools.lru_cache(maxsize=1)
def pack_land() -> bytes:
    """The coastline as int16, little-endian: each ring's length, then its places in 0.01°."""
    polygons = basemap.land().geoms
    rings = [
        np.array(r.coords) for polygon in polygons for r in (polygon.exterior, *polygon.interiors)
    ]
    parts = [[[len(ring)], (100 * ring[:, ::-1]).round().ravel()] for ring in rings]
    return b"".join(np.concatenate(part).astype("<i2").tobytes() for part in parts)


def data_url(image: Image.Image) -> str:
    """A small picture as the text that an <img> takes."""
    small = image.convert("RGB")
    small.thumbnail((64, 64))  # pixels
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def read_upload(text: str) -> Image.Image:
    """The image of a data: address, as browsers send a file."""
    try:
        image = Image.open(io.BytesIO(base64.b64decode(text.split(",", 1)[1])))
        image.load()
    except (OSError, ValueError, IndexError, SyntaxError, Image.DecompressionBombError) as error:
        kind = type(error).__name__
        raise ValueError(f"the uploaded file is no image that can be read ({kind})") from error
    return image.convert("RGB")
