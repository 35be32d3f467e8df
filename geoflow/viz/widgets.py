"""Explorers: watch points flow over a map that a browser draws. The only file that imports anywidget and IPython.

`TrajectoryPlayer` sends trajectories once, four bytes for a place, and the JavaScript module beside it (`static/player.js`) draws them: in
JupyterLab and wherever anywidget works, in a page without a kernel (`save_html`), inside an exported notebook (`embed`). The `explore_…`
functions are players that ask the kernel for new panels when the reader chooses something else; `atlas` has all its answers computed
before. What GitHub cannot show, `contact_sheet` draws as a figure.

What the JavaScript reads from the model:

===================================  ==============================================================================================
``panels``                           a dict for each map, see `pack`
``data``                             bytes: the places and densities of all panels
``land``                             bytes: the coastline, see `pack_land`
``controls``, ``values``             what can be chosen, and what is: name → value
``asked``, ``answered``              number of the reader's last question, and of the last that is answered
``table``                            answers computed before: values, joined by ``|`` → indices of panels
``message``                          what went wrong, shown above the maps
``position``                         share of the way from noise (0) to places (1)
``center``, ``projection``, …        of the maps at the beginning
===================================  ==============================================================================================
"""

import base64
import functools
import html
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anywidget
import matplotlib
import numpy as np
import torch
import traitlets
from PIL import Image
from torch import Tensor

from geoflow import metrics, runtime, samplers, schedules, sphere
from geoflow.data import tiles
from geoflow.geolocator import Geolocator
from geoflow.methods import How
from geoflow.runtime import choose, write_atomically
from geoflow.viz import maps
from geoflow.vmf import Mixture

MODULE = Path(__file__).parent / "static" / "player.js"
TRAILS = ("none", "short", "long", "whole way")
PROJECTIONS = ("flat", "globe")
STATES = 81  # sent of a trajectory at most
THUMBNAIL = 64  # pixels
STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
GUIDANCES = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)
FINE_STEPS, FINE_POINTS = (
    128,
    64,
)  # the solution that others are compared with: RK4, on so many of the points
KERNEL_KM = 200.0  # what samples are smoothed with where no density is computed
SIX = {
    "Riemannian flow, S²": "tiles",
    "flow matching, R³": "tiles-flow",
    "diffusion, R³": "tiles-diffusion",
    "von Mises–Fisher": "tiles-vmf",
    "mixture of three vMF": "tiles-vmf-mixture",
    "land, without looking": "land",
}
"""The six methods side by side: their names, and the shipped models."""
ALL_SIX = "all six"


# Panels, and the bytes they become


@dataclass(frozen=True)
class Panel:
    """What one map shows.

    Attributes:
        trajectories: (steps + 1, n, 2) latitude and longitude in degrees, noise first; a single state is drawn as points that rest.
        title, note: in words, above the map.
        times: (steps + 1,) times of the states, 0 (noise) to 1 (data); None: equally spaced.
        truth: latitude and longitude of the true place.
        best: (k, 2) best places, best first.
        image: the PIL image that the points should find.
        density: a `DensityMap`, or anything with its fields, in place of or below points.
        color: which of the six colours; None: by the panel's number.
        moved_by_hand: the reader drags its ends, see `explore_sphere`.
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


def quantise(latlon) -> bytes:
    """Places as uint16 pairs, little-endian: latitudes to 0.0014°, longitudes to 0.0027°, 0.3 km.

    Args:
        latlon: (..., 2) degrees.

    Raises:
        ValueError: what is no place.
    """
    places = sphere.to_latlon(sphere.from_latlon(torch.as_tensor(latlon, dtype=torch.float64)))
    lat = ((places[..., 0] + 90) / 180 * 65535).round()
    lon = ((places[..., 1] + 180) / 360 * 65536).round() % 65536
    return torch.stack([lat, lon], -1).numpy().astype("<u2").tobytes()


def pack(panels: Sequence[Panel]) -> tuple[list[dict], bytes, str]:
    """What the browser needs of panels: a description of each, the bytes it refers to, and what is to be said about NaN.

    Points that are not finite somewhere are left out. The bytes of a panel begin at `start`: states × count pairs as `quantise` makes
    them; those of its density at `density.start`: rows × columns of uint8, 0 for uniform or less, 255 for its peak, in equal steps of
    log-density, from 90° N, 180° W.

    Raises:
        ValueError: no panels, wrong shapes, what is no place or no time.
    """
    if not panels:
        raise ValueError("no panels; expected at least one")
    described, data, missing = [], bytearray(), []
    for number, panel in enumerate(panels):
        latlon = torch.as_tensor(panel.trajectories, dtype=torch.float64).detach().cpu()
        if latlon.ndim != 3 or latlon.shape[-1] != 2 or not len(latlon):
            raise ValueError(
                f"trajectories have shape {tuple(latlon.shape)}; expected (steps + 1, n, 2), latitude and longitude"
            )
        times = (
            np.linspace(0, 1, len(latlon))
            if panel.times is None
            else np.asarray(panel.times, dtype=float)
        )
        if times.shape != (len(latlon),) or not np.isfinite(times).all():
            raise ValueError(
                f"times {times.shape} of {len(latlon)} states; expected one finite time for each"
            )
        whole = latlon.isfinite().all(-1).all(0)
        if not whole.all():
            missing.append(
                f"{panel.title + ': ' if panel.title else ''}{int((~whole).sum())} of {len(whole)} points are NaN or infinite somewhere"
            )
        described.append(
            {
                "title": panel.title,
                "note": panel.note,
                "states": len(latlon),
                "count": int(whole.sum()),
                "start": len(data),
                "times": [round(t, 6) for t in times.tolist()],
                "truth": _places(panel.truth)[0] if panel.truth is not None else None,
                "best": _places(panel.best) if panel.best is not None else None,
                "image": data_url(panel.image) if panel.image is not None else None,
                "color": number if panel.color is None else panel.color,
                "sphere": panel.moved_by_hand,
            }
        )
        data += quantise(latlon[:, whole])
        if panel.density is not None:
            levels, peak = _levels(panel.density)
            described[-1]["density"] = {
                "rows": levels.shape[0],
                "columns": levels.shape[1],
                "start": len(data),
                "peak": round(peak, 3),
            }
            data += levels.tobytes()
            data += bytes(len(data) % 2)
    return described, bytes(data), f"{'; '.join(missing)}: left out." if missing else ""


def _places(latlon) -> list[list[float]]:
    """Checked places, rounded for JSON."""
    places = sphere.to_latlon(
        sphere.from_latlon(torch.as_tensor(latlon, dtype=torch.float64).detach().cpu())
    )
    return [[round(degrees, 4) for degrees in place] for place in places.reshape(-1, 2).tolist()]


def _levels(density) -> tuple[np.ndarray, float]:
    """(rows, columns) uint8, as `pack` describes them, and the peak in nats over uniform."""
    nats = np.asarray(density.log_density, dtype=float) - sphere.LOG_UNIFORM
    if nats.ndim != 2 or np.isnan(nats).any():
        raise ValueError(
            f"log_density has shape {nats.shape}{', with NaN' if np.isnan(nats).any() else ''}; expected (H, W) numbers"
        )
    peak = maps.peak_of(density)
    return np.clip(255 * nats / peak, 0, 255).astype(np.uint8), peak


@functools.lru_cache(maxsize=1)
def pack_land() -> bytes:
    """The coastline: for each ring its length and its (latitude, longitude) in hundredths of degrees, int16, little-endian."""
    polygons = json.loads((runtime.DATA / "land-110m.geojson").read_text())["coordinates"]
    parts = []
    for ring in (np.array(ring) for polygon in polygons for ring in polygon):
        parts.append(
            np.concatenate([[len(ring)], (100 * ring[:, ::-1]).round().ravel()])
            .astype("<i2")
            .tobytes()
        )
    return b"".join(parts)


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
        raise ValueError(
            f"the uploaded file is no image that can be read ({type(error).__name__})"
        ) from error
    return image.convert("RGB")


# What can be chosen


def choice(name: str, label: str, options: Iterable) -> dict:
    """A control: one of a few options."""
    return {"name": name, "label": label, "kind": "choice", "options": list(options)}


def number(name: str, label: str, options: Iterable[float]) -> dict:
    """A control: a slider over numbers; from Python any number between the first and the last is taken."""
    return {"name": name, "label": label, "kind": "range", "options": list(options)}


def _check(control: dict, value) -> None:
    name, kind, options = control["label"], control["kind"], control.get("options", ())
    if kind == "choice":
        choose(name, value, options)
    elif kind == "range":
        whole = all(isinstance(option, int) for option in options)
        known = isinstance(value, int | float) and not isinstance(value, bool)
        if not known or not options[0] <= value <= options[-1] or (whole and value != int(value)):
            raise ValueError(
                f"{name} {value!r}; expected a {'whole ' if whole else ''}number from {options[0]} to {options[-1]}"
            )
    elif kind == "image" and not str(value).startswith("data:"):
        choose(name, value, options)
    elif kind == "place":
        sphere.from_latlon(torch.tensor(value, dtype=torch.float64))


# The player


class TrajectoryPlayer(anywidget.AnyWidget):
    """Trajectories on a map that turns by dragging: a slider over the steps, play and pause, speed, trails, several maps in step.

    >>> from geoflow import Geolocator, widgets
    >>> from geoflow.data import tiles
    >>> geo = Geolocator.from_pretrained("tiles")
    >>> paths = geo.trajectories(tiles.tile(61, 97), n=100, steps=8, seed=0)[:, 0]
    >>> player = widgets.TrajectoryPlayer(paths, truth=(61, 97))
    >>> len(player.data)
    3600

    What cannot be drawn is said in the widget (`message`), not raised: a cell is never blank.

    Args:
        trajectories: (steps + 1, n, 2) degrees, noise first; (steps + 1, B, n, 2) for B maps in step, as `Geolocator.trajectories` gives
            them; {title: (steps + 1, n, 2)}; or a list of `Panel`. Steps may differ between maps.
        times: (steps + 1,) times of the states; None: equally spaced.
        truth: latitude and longitude of the true place, or one for each map.
        best: (k, 2) best places, or one such for each map, such as `Geolocator.predict(…).latlon`.
        images: a PIL image, or one for each map.
        titles: a title, or one for each map.
        position: share of the steps at the beginning, 0 (noise) to 1 (places).
        projection: "flat" (Equal Earth) or "globe"; the reader can change it.
        trails: "none", "short", "long" or "whole way".
        together: all on one map, each in its colour, rather than side by side.
        center: latitude and longitude in the middle of the map.
        controls, values, answer: what can be chosen, see `choice` and `number`; what is; and the function {name: value} → lists of
            panels, to be shown one after the other, for what the reader chooses.
        table: answers computed before, see the module.
        keep: leave the page of `to_html` in the notebook's output too: exported, or opened without a kernel, the player stays alive. It
            takes 4/3 of `data` and 100 kB.

    Raises:
        ValueError: unknown projection or trails, or values that no control has.
    """

    _esm = MODULE
    panels = traitlets.List().tag(sync=True, page=True)
    data = traitlets.Bytes().tag(sync=True, page=True)
    land = traitlets.Bytes().tag(sync=True, page=True)
    controls = traitlets.List().tag(sync=True, page=True)
    values = traitlets.Dict().tag(sync=True, page=True)
    table = traitlets.Dict().tag(sync=True, page=True)
    asked = traitlets.Int(0).tag(sync=True, page=True)
    answered = traitlets.Int(0).tag(sync=True, page=True)
    message = traitlets.Unicode("").tag(sync=True, page=True)
    live = traitlets.Bool(True).tag(sync=True, page=True)
    position = traitlets.Float(1.0).tag(sync=True, page=True)
    center = traitlets.List([0.0, 0.0]).tag(sync=True, page=True)
    projection = traitlets.Unicode("flat").tag(sync=True, page=True)
    trails = traitlets.Unicode("short").tag(sync=True, page=True)
    together = traitlets.Bool(False).tag(sync=True, page=True)

    def __init__(
        self, trajectories=None, *, times=None, truth=None, best=None, images=None, titles=None, position: float = 1.0,
        projection: str = "flat", trails: str = "short", together: bool = False, center: tuple[float, float] = (0.0, 0.0),
        controls: Sequence[dict] = (), values: Mapping[str, Any] | None = None,
        answer: Callable[[dict], Iterable[list[Panel]]] | None = None, table: dict[str, list[int]] | None = None,
        keep: bool = False,
    ):  # fmt: skip
        choose("projection", projection, PROJECTIONS)
        choose("trails", trails, TRAILS)
        self.shown: list[Panel] = []
        self._answer, self._done, self.keep = None, None, keep
        super().__init__(
            land=pack_land(), position=position, projection=projection, trails=trails, together=together, center=list(_places(center)[0]),
            controls=list(controls), values=dict(values or {}), table=table or {},
        )  # fmt: skip
        if answer is None:
            try:
                self.show(as_panels(trajectories, times, truth, best, images, titles))
            except ValueError as error:
                self.message = str(error)
        self._answer = answer
        self._ask()
        self.observe(self._ask, ["values", "asked"])

    def show(self, panels: Sequence[Panel]) -> None:
        """Show other panels; browsers get them in one message.

        Raises:
            ValueError: as `pack`.
        """
        described, data, complaint = pack(panels)
        self.shown = list(panels)
        with self.hold_sync():
            self.panels, self.data, self.message = described, data, complaint

    def _ask(self, change=None) -> None:
        """Answer what was chosen. What goes wrong is shown and raised: a test that sets a value fails, a reader sees why."""
        question = (dict(self.values), self.asked)
        if (
            self._answer is None or question == self._done
        ):  # asked and values change together, and each of them is observed
            return
        self._done = question
        try:
            for control in self.controls:
                if control["name"] not in self.values:
                    raise ValueError(
                        f"values lack {control['name']!r}; expected {', '.join(repr(c['name']) for c in self.controls)}"
                    )
                _check(control, self.values[control["name"]])
            for panels in self._answer(question[0]):
                self.show(panels)
        except Exception as error:
            self.message = str(error) or type(error).__name__
            raise
        finally:
            self.answered = self.asked

    def select(self, **values) -> None:
        """Choose as a reader would: `player.select(steps=4)`.

        Raises:
            ValueError: unknown names or values.
        """
        for name in values:
            choose("control", name, [control["name"] for control in self.controls])
        self.values = {**self.values, **values}

    # Without a kernel

    def to_html(self, title: str = "geoflow", text: str = "") -> str:
        """One page that holds everything: module, trajectories, coastline. It needs neither kernel nor network."""
        binary = {name: base64.b64encode(getattr(self, name)).decode() for name in ("data", "land")}
        state = {
            name: getattr(self, name) for name in self.trait_names(page=True) if name not in binary
        } | {"live": False}
        return _PAGE.format(
            title=html.escape(title),
            head=f"<h1>{html.escape(title)}</h1>" if text else "",
            text=f"<p>{html.escape(text)}</p>" if text else "",
            module=MODULE.read_text(encoding="utf-8"),
            state=_script(state),
            binary=_script(binary),
        )

    def save_html(self, file, title: str = "geoflow", text: str = "") -> Path:
        """Write `to_html` to a file, whole or not at all, and return its path. With `text`, title and text stand above the maps."""
        path = Path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, self.to_html(title, text))
        return path

    def embed(self, height: int = 560):
        """The same page inside a notebook, where it stays alive without a kernel: in an exported HTML, on a site.

        Args:
            height: pixels.
        """
        from IPython.display import HTML

        frame = f'<iframe srcdoc="{html.escape(self.to_html())}" style="width: 100%; height: {height}px; border: 0"></iframe>'
        return HTML(f"<div>{frame}</div>")

    def __repr__(self) -> str:
        return f"TrajectoryPlayer({len(self.panels)} maps, {len(self.data):,} bytes)"

    def _repr_mimebundle_(self, **kwargs):
        bundle, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
        if self.keep:
            bundle["text/html"] = self.embed().data
        return bundle, metadata

    def contact_sheet(self, moments: Sequence[float] = (0.0, 0.5, 0.75, 1.0)) -> maps.MapFigure:
        """What is shown, as a figure for where no script runs: see `contact_sheet`."""
        return contact_sheet(self.shown, moments)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 12px auto; max-width: 1100px; padding: 0 12px; font: 15px/1.45 system-ui, sans-serif; }}
body {{ background: Canvas; color: CanvasText; }}
h1 {{ font-size: 1.3em; margin: 0.3em 0; }}
p {{ margin: 0.3em 0 0.8em; max-width: 75ch; }}
</style>
</head>
<body>
{head}
{text}
<main id="player"></main>
<noscript>These maps are drawn by a script; this browser runs none.</noscript>
<script type="module">
{module}
const state = {state};
for (const [name, text] of Object.entries({binary})) state[name] = new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
const nothing = () => {{}}, set = (name, value) => {{ state[name] = value; }};
const model = {{ get: (name) => state[name], set, save_changes: nothing, on: nothing, off: nothing }};
render({{ model, el: document.getElementById("player") }});
</script>
</body>
</html>
"""


def _script(value) -> str:
    """JSON that may stand in a script element."""
    return json.dumps(value, separators=(",", ":")).replace("</", "<\\/")


def as_panels(
    trajectories, times=None, truth=None, best=None, images=None, titles=None
) -> list[Panel]:
    """Panels of what `TrajectoryPlayer` takes.

    Raises:
        ValueError: a shape that is none of these, or a number of truths, images, … that is not that of the maps.
    """
    if (
        isinstance(trajectories, Sequence)
        and trajectories
        and all(isinstance(item, Panel) for item in trajectories)
    ):
        return list(trajectories)
    if isinstance(trajectories, Mapping):
        titles, paths = list(trajectories), list(trajectories.values())
    else:
        try:
            array = torch.as_tensor(trajectories)
        except (RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"trajectories are a {type(trajectories).__name__}; expected numbers (steps + 1, n, 2)"
            ) from error
        if array.ndim not in (3, 4) or array.shape[-1] != 2:
            raise ValueError(
                f"trajectories have shape {tuple(array.shape)}; expected (steps + 1, n, 2) or (steps + 1, B, n, 2), degrees"
            )
        paths = [array] if array.ndim == 3 else list(array.unbind(1))
    count = len(paths)

    def each(what: str, values, one: bool) -> list:
        if values is None or one:
            return [values] * count
        if len(values) != count:
            raise ValueError(f"{len(values)} {what} for {count} maps; expected one for each")
        return list(values)

    flat = truth is not None and np.ndim(truth) == 1
    alike = best is not None and np.ndim(best) == 2
    rows = zip(
        paths, each("titles", titles, isinstance(titles, str)), each("truths", truth, flat), each("best places", best, alike),
        each("images", images, isinstance(images, Image.Image)), strict=True,
    )  # fmt: skip
    return [
        Panel(p, title or "", times=times, truth=t, best=b, image=image)
        for p, title, t, b, image in rows
    ]


def contact_sheet(
    panels: Sequence[Panel], moments: Sequence[float] = (0.0, 0.5, 0.75, 1.0)
) -> maps.MapFigure:
    """Panels at some shares of their steps, as a figure: a row for each panel; a density or resting points take one map.

    Args:
        panels: what a player shows.
        moments: shares of the steps, 0 (noise) to 1 (places).
    """
    by_hand = any(panel.moved_by_hand for panel in panels)
    resting = all(len(panel.trajectories) == 1 for panel in panels)
    if by_hand or resting:
        moments = (1.0,)
    views = ("orthographic", "equal-earth") if by_hand else ("equal-earth",)
    cells = [(panel, share, view) for panel in panels for share in moments for view in views]
    columns = len(moments) if len(panels) > 1 and len(moments) > 1 else min(2, len(cells))
    rows, width = math.ceil(len(cells) / columns), 7.0
    small: dict[Any, Any] = {"font.size": 7, "axes.titlesize": 7}
    with matplotlib.rc_context(small):
        figure = maps.MapFigure(
            figsize=(width, rows * (0.487 * width / columns + 0.3)), layout="constrained"
        )
        grid = figure.add_gridspec(rows, columns)
        for cell, (panel, share, view) in enumerate(cells):
            latlon = torch.as_tensor(panel.trajectories)
            latlon = latlon[:, latlon.isfinite().all(-1).all(0)]
            state = round(share * (len(latlon) - 1))
            middle = latlon[len(latlon) // 2, 0].tolist() if by_hand else (0.0, 0.0)
            ax = maps.world(
                view,
                (middle[0], middle[1] if view == "orthographic" else 0.0),
                ax=grid[cell // columns, cell % columns],
            )
            words = [panel.title] if panel.title and share == moments[0] else []
            if len(latlon) > 1 and not by_hand:
                times = np.linspace(0, 1, len(latlon)) if panel.times is None else panel.times
                words.append(f"t = {float(times[state]):.2f}")
            if panel.note and share == moments[-1]:
                words.append(panel.note)
            ax.set_title(" · ".join(words), pad=2)
            if panel.density is not None:
                maps.draw_density(ax, panel.density, colorbar=False)
            if panel.moved_by_hand:
                maps.draw_trajectories(ax, latlon)
            else:
                maps.draw_points(ax, latlon[state], maps.TIME_COLORS(1.0), size=2.0)
            if panel.truth is not None:
                maps.draw_truth(ax, panel.truth).set_markersize(18 / math.sqrt(columns))
            if panel.best is not None and share == moments[-1]:
                maps.draw_guesses(ax, torch.as_tensor(panel.best))
    return figure


# Explorers


class Gallery:
    """What can be looked for: named images, their embeddings, made when they are needed, and their true places.

    Args:
        images: {name: image}, one image, a list of them, or None for the six telling tiles.
        truth: {name: (latitude, longitude)}, or one place for one image.
    """

    def __init__(self, images=None, truth=None):
        if images is None:
            images, truth = (
                {name: tiles.tile(*place) for name, place in tiles.EXAMPLES.items()},
                tiles.EXAMPLES,
            )
        if not isinstance(images, Mapping):
            images = list(images) if isinstance(images, (list, tuple)) else [images]
            images = {
                Path(image).stem if isinstance(image, (str, Path)) else f"image {i}": image
                for i, image in enumerate(images, 1)
            }
        if not images:
            raise ValueError("no images; expected at least one")
        self.images = {
            name: Image.open(image) if isinstance(image, (str, Path)) else image
            for name, image in images.items()
        }
        if truth is not None and not isinstance(truth, Mapping):
            truth = dict(zip(self.images, [truth] if np.ndim(truth) == 1 else truth, strict=True))
        self.truths = dict(truth or {})
        self._embedded: dict[tuple[int, str], Tensor | None] = {}

    @property
    def first(self) -> str:
        return next(iter(self.images))

    def control(self) -> dict:
        pictures = {name: data_url(image) for name, image in self.images.items()}
        return {
            "name": "image",
            "label": "image",
            "kind": "image",
            "options": list(pictures),
            "images": pictures,
        }

    def picture(self, value: str) -> Image.Image:
        return self.images[value] if value in self.images else read_upload(value)

    def about(self, value: str) -> dict[str, Any]:
        """What a panel says about an image; those that can be picked are seen there."""
        return {
            "image": None if value in self.images else self.picture(value),
            "truth": self.truths.get(value),
        }

    def cond(self, geo: Geolocator, value: str) -> Tensor | None:
        """(1, C), or None for a method that looks at nothing."""
        key = id(geo), value
        if key not in self._embedded:
            self._embedded[key] = (
                geo.embed(self.picture(value)) if geo.encoder is not None else None
            )
        return self._embedded[key]


def _default(geo: Geolocator | None) -> Geolocator:
    return geo if geo is not None else Geolocator.from_pretrained("tiles")


def with_schedule(geo: Geolocator, name: str) -> Geolocator:
    """The same model, its steps placed by another schedule."""
    return Geolocator(geo.network, geo.method, name, geo.encoder, geo.provenance)


def flow(
    geo: Geolocator, cond: Tensor | None, n: int, how: How, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """The way of n points, (states, n, 2) degrees, and its times: of many steps only `STATES` states, evenly chosen.

    A closed form, whose points rest, has one state.
    """
    if not geo.model.guidable:
        return geo.sample(cond=cond, n=n, seed=seed), torch.ones(1)
    paths = geo.trajectories(
        cond=cond, n=n, steps=how.steps, solver=how.solver, guidance=how.guidance, seed=seed
    )[:, 0]
    times = geo.model.times(how)
    kept = (
        torch.linspace(0, how.steps, min(STATES, how.steps + 1), dtype=torch.float64).round().long()
    )
    return paths[kept], times[kept]


def median_error_km(geo: Geolocator, cond: Tensor | None, latlon: Tensor, fine: Tensor) -> float:
    """Median distance of the first points from their places in a fine solution, km: (n, 2), (m, 2) with m ≤ n."""
    return float(
        sphere.distance_km(
            sphere.from_latlon(latlon[: len(fine)].double()), sphere.from_latlon(fine.double())
        ).median()
    )


def _fine(geo: Geolocator, n: int, seed: int) -> Callable[[Tensor | None, float], Tensor]:
    """A fine solution for the first of n points with the same noise, remembered: (cond, guidance) → (m, 2) degrees."""
    known: dict[tuple[int, float], tuple[Tensor | None, Tensor]] = {}
    noise = geo.model.noise((n,), torch.Generator().manual_seed(seed))[None, :FINE_POINTS]

    def solve(cond: Tensor | None, guidance: float) -> Tensor:
        key = id(cond), guidance
        if key not in known:  # the embedding is kept with its answer, so that its id stays its own
            known[key] = (
                cond,
                geo.sample(cond=cond, noise=noise, steps=FINE_STEPS, guidance=guidance)[0],
            )
        return known[key][1]

    return solve


def _accuracy(km: float) -> str:
    return (
        f"median error {km:,.0f} km"
        if km >= 10
        else f"median error {km:.2g} km"
        if km >= 0.1
        else "median error below 0.1 km"
    )


def _schedule_name(geo: Geolocator) -> str:
    """Of a flow's steps; what is no flow is refused."""
    if not geo.model.guidable:
        raise ValueError(f"method {geo.method!r} has no timesteps to explore; it is a closed form")
    return geo.model.schedule_name


def _solvers(geo: Geolocator) -> list[str]:
    return [*samplers.FIXED, *([samplers.DDIM] if geo.method == "diffusion" else [])]


def explore_timesteps(
    geo: Geolocator | None = None,
    images=None,
    truth=None,
    *,
    n: int = 500,
    seed: int = 0,
    **view: Any,
) -> TrajectoryPlayer:
    """Choose steps, solver, schedule and guidance: the points flow anew, and their error against a fine solution is told.

    The error is the median distance of `FINE_POINTS` points from where RK4 with `FINE_STEPS` steps takes them.

    Args:
        geo: a flow; None: the shipped model.
        images, truth: see `Gallery`.
        n: points.
        seed: of their starting places.
        view: see `TrajectoryPlayer`.

    Raises:
        ValueError: a method without trajectories.
    """
    geo, gallery = _default(geo), Gallery(images, truth)
    fine, scheduled = _fine(geo, n, seed), functools.cache(lambda name: with_schedule(geo, name))
    controls = [
        gallery.control(), number("steps", "steps", STEPS), choice("solver", "solver", _solvers(geo)),
        choice("schedule", "schedule", [*schedules.SCHEDULES, schedules.FEW_STEPS]), number("guidance", "guidance ω", GUIDANCES),
    ]  # fmt: skip
    values = {
        "image": gallery.first,
        "steps": 8,
        "solver": "rk4",
        "schedule": _schedule_name(geo),
        "guidance": 0.0,
    }

    def answer(v: dict) -> Iterable[list[Panel]]:
        how, cond = (
            How(int(v["steps"]), v["solver"], float(v["guidance"])),
            gallery.cond(geo, v["image"]),
        )
        paths, times = flow(scheduled(v["schedule"]), cond, n, how, seed)
        note = f"{samplers.evaluations(how.solver, how.steps)} evaluations"
        panel = Panel(paths, times=times, note=note, **gallery.about(v["image"]))
        yield [panel]
        error = median_error_km(geo, cond, paths[-1], fine(cond, how.guidance))
        yield [replace(panel, note=f"{note} · {_accuracy(error)}")]

    return TrajectoryPlayer(controls=controls, values=values, answer=answer, **view)


def explore_guidance(
    geo: Geolocator | None = None,
    images=None,
    truth=None,
    *,
    n: int = 300,
    seed: int = 0,
    **view: Any,
) -> TrajectoryPlayer:
    """The same points without guidance and with it, in step; how much they gather is told. Arguments as in `explore_timesteps`."""
    geo, gallery = _default(geo), Gallery(images, truth)
    _schedule_name(geo)
    controls = [
        gallery.control(),
        number("guidance", "guidance ω", GUIDANCES),
        number("steps", "steps", STEPS),
    ]

    @functools.lru_cache(maxsize=16)  # the unguided half need not be computed again for every ω
    def solve(image: str, how: How) -> tuple[Tensor, Tensor]:
        return flow(geo, gallery.cond(geo, image), n, how, seed)

    def answer(v: dict) -> Iterable[list[Panel]]:
        panels = []
        for omega in (0.0, float(v["guidance"])):
            paths, times = solve(v["image"], How(int(v["steps"]), "rk4", omega))
            middle, _, radius = metrics.best_places(sphere.from_latlon(paths[-1]), 1)
            note = f"half within {float(radius[0]):,.0f} km of the best place"
            panels.append(
                Panel(
                    paths,
                    f"ω = {omega:g}",
                    note,
                    times,
                    best=sphere.to_latlon(middle),
                    **gallery.about(v["image"]),
                )
            )
        yield panels

    values = {"image": gallery.first, "guidance": 2.0, "steps": 16}
    return TrajectoryPlayer(controls=controls, values=values, answer=answer, **view)


def explore_schedule(
    geo: Geolocator | None = None,
    images=None,
    truth=None,
    *,
    n: int = 300,
    seed: int = 0,
    **view: Any,
) -> TrajectoryPlayer:
    """Every schedule with the same number of steps, in step: where it places them, what that costs. As `explore_timesteps`."""
    geo, gallery = _default(geo), Gallery(images, truth)
    _schedule_name(geo)
    scheduled, fine = (
        {name: with_schedule(geo, name) for name in (*schedules.SCHEDULES, schedules.FEW_STEPS)},
        _fine(geo, n, seed),
    )
    controls = [
        gallery.control(),
        number("steps", "steps", [s for s in STEPS if s <= 64]),
        choice("solver", "solver", _solvers(geo)),
    ]

    def answer(v: dict) -> Iterable[list[Panel]]:
        cond, panels = gallery.cond(geo, v["image"]), []
        for name, model in scheduled.items():
            paths, times = flow(model, cond, n, How(int(v["steps"]), v["solver"]), seed)
            note = _accuracy(median_error_km(geo, cond, paths[-1], fine(cond, 0.0)))
            panels.append(Panel(paths, name, note, times, truth=gallery.truths.get(v["image"])))
        yield panels

    return TrajectoryPlayer(
        controls=controls,
        values={"image": gallery.first, "steps": 8, "solver": "midpoint"},
        answer=answer,
        **view,
    )


def explore_density(
    geo: Geolocator | None = None,
    images=None,
    truth=None,
    *,
    n: int = 1024,
    k: int = 3,
    seed: int = 0,
    **view: Any,
) -> TrajectoryPlayer:
    """Pick a tile, or upload an image: its density over the Earth, its localizability, the k best places.

    At once: n samples, smoothed by a kernel of `KERNEL_KM`. On request ("exact", some ten seconds): the density itself.

    Args:
        geo: any model; None: the shipped one.
        images, truth: see `Gallery`.
        n: samples.
        k: best places.
        seed: of the samples.
        view: see `TrajectoryPlayer`.
    """
    geo, gallery = _default(geo), Gallery(images, truth)
    exact: dict[str, Any] = {}

    def answer(v: dict) -> Iterable[list[Panel]]:
        image, cond = v["image"], gallery.cond(geo, v["image"])
        samples = sphere.from_latlon(geo.sample(cond=cond, n=n, seed=seed)[0])
        places, mass, _ = metrics.best_places(samples, k)
        shares = ", ".join(f"{100 * float(m):.0f} %" for m in mass)
        panel = Panel(
            torch.zeros(1, 0, 2),
            note=f"{k} best: {shares}",
            density=smoothed(samples),
            best=sphere.to_latlon(places),
            **gallery.about(image),
        )
        if v["density"] == "smoothed samples" or image not in exact:
            yield [panel]
        bits = float(geo.localizability(cond=cond, n=min(n, 256), seed=seed))
        panel = replace(
            panel, note=f"localizability {bits:.1f} bits (uniform: −3.7) · {panel.note}"
        )
        if v["density"] == "smoothed samples":
            yield [panel]
            return
        if image not in exact:
            exact[image] = geo.density(cond=cond)
        yield [
            replace(
                panel, density=exact[image], note=f"{panel.note} · ∫p = {exact[image].integral:.3f}"
            )
        ]

    controls = [gallery.control(), choice("density", "density", ["smoothed samples", "exact"])]
    return TrajectoryPlayer(
        controls=controls,
        values={"image": gallery.first, "density": "smoothed samples"},
        answer=answer,
        **view,
    )


@dataclass(frozen=True)
class Raster:
    """A density on a grid, with the fields that `geoflow.maps` draws: lat (H,), lon (W,) degrees, log_density (H, W) nats."""

    lat: Tensor
    lon: Tensor
    log_density: Tensor


def smoothed(samples: Tensor, degrees: float = 2.0) -> Raster:
    """The density of samples, (n, 3) unit vectors, each smoothed to a von Mises–Fisher kernel of `KERNEL_KM`."""
    lat, lon = (
        torch.arange(90 - degrees / 2, -90, -degrees),
        torch.arange(-180 + degrees / 2, 180, degrees),
    )
    x = (
        sphere.from_latlon(torch.stack(torch.meshgrid(lat, lon, indexing="ij"), -1))
        .reshape(1, -1, 3)
        .float()
    )
    weight = torch.full((1, len(samples)), -math.log(len(samples)))
    kappa = torch.full((1, len(samples)), (sphere.EARTH_RADIUS_KM / KERNEL_KM) ** 2)
    mixture = Mixture(weight, samples.float()[None], kappa)
    return Raster(
        lat,
        lon,
        torch.cat([mixture.log_prob(part) for part in x.split(2048, 1)], 1).reshape(
            len(lat), len(lon)
        ),
    )


def compare_methods(
    models: Mapping[str, Geolocator] | None = None,
    images=None,
    truth=None,
    *,
    n: int = 500,
    seed: int = 0,
    **view: Any,
) -> TrajectoryPlayer:
    """Methods side by side and in step; the points of a closed form rest.

    Args:
        models: {title: model}, or one model to set beside the six; None: the six shipped ones.
        images, truth: see `Gallery`.
        n: points of each.
        seed: of their starting places.
        view: see `TrajectoryPlayer`.
    """
    if models is None or isinstance(models, Geolocator):
        own = {models.method: models} if isinstance(models, Geolocator) else {}
        models = {title: Geolocator.from_pretrained(name) for title, name in SIX.items()} | own
    gallery, chosen = Gallery(images, truth), dict(models)
    controls = [
        gallery.control(),
        number("steps", "steps", STEPS),
        number("guidance", "guidance ω (flows)", GUIDANCES),
    ]

    def answer(v: dict) -> Iterable[list[Panel]]:
        yield [
            _method_panel(
                geo, title, i, gallery, v["image"], n, int(v["steps"]), float(v["guidance"]), seed
            )
            for i, (title, geo) in enumerate(chosen.items())
        ]

    return TrajectoryPlayer(
        controls=controls,
        values={"image": gallery.first, "steps": 16, "guidance": 0.0},
        answer=answer,
        **view,
    )


def _method_panel(
    geo,
    title: str,
    color: int,
    gallery: Gallery,
    image: str,
    n: int,
    steps: int,
    guidance: float,
    seed: int,
) -> Panel:
    how = How(steps, "rk4", guidance if geo.model.guidable else 0.0)
    paths, times = flow(geo, gallery.cond(geo, image), n, how, seed)
    note = "" if geo.model.guidable else "closed form"
    return Panel(paths, title, note, times, truth=gallery.truths.get(image), color=color)


def explore_sphere(x=(48.9, 2.4), y=(35.7, 139.7), **view: Any) -> TrajectoryPlayer:
    """Two places to drag: the geodesic between them, the vectors log gives at each, and the point exp leads to, moved by the slider.

    Args:
        x, y: latitude and longitude, degrees.
        view: see `TrajectoryPlayer`.

    Raises:
        ValueError: what is no place.
    """
    controls = [{"name": name, "label": name, "kind": "place"} for name in ("x", "y")]
    values = {"x": _places(x)[0], "y": _places(y)[0]}

    def answer(v: dict) -> Iterable[list[Panel]]:
        ends = sphere.from_latlon(torch.tensor([v["x"], v["y"]], dtype=torch.float64))
        t = torch.linspace(0, 1, STATES, dtype=torch.float64)[:, None]
        yield [Panel(sphere.to_latlon(sphere.geodesic(ends[:1], ends[1:], t)), moved_by_hand=True)]

    look: dict[str, Any] = {"projection": "globe", "center": (45.0, 60.0), "position": 0.5, **view}
    return TrajectoryPlayer(controls=controls, values=values, answer=answer, **look)


# A page with all its answers


def atlas(
    models: Mapping[str, Geolocator] | None = None, images=None, truth=None, *, n: int = 240, steps: Sequence[int] = (1, 2, 4, 8, 16, 32),
    guidances: Sequence[float] = (0.0, 1.0, 3.0), seed: int = 0, **view: Any,
) -> TrajectoryPlayer:  # fmt: skip
    """Images × methods × steps × guidance, computed before: every control works without a kernel. A minute or two on a laptop.

    Args:
        models: {title: model}; None: the six shipped ones.
        images, truth: see `Gallery`.
        n: points.
        steps, guidances: of RK4; closed forms have neither.
        seed: of their starting places.
        view: see `TrajectoryPlayer`.
    """
    gallery, models = (
        Gallery(images, truth),
        models or {title: Geolocator.from_pretrained(name) for title, name in SIX.items()},
    )
    panels: list[Panel] = []
    table: dict[str, list[int]] = {}
    for image in runtime.progress(gallery.images, desc="images"):
        rest: dict[str, int] = {}
        for omega in guidances:
            for count in steps:
                row = []
                for color, (title, geo) in enumerate(models.items()):
                    if title not in rest:
                        panels.append(
                            _method_panel(geo, title, color, gallery, image, n, count, omega, seed)
                        )
                        index = len(panels) - 1
                        if not geo.model.guidable:
                            rest[title] = index
                    else:
                        index = rest[title]
                    row.append(index)
                    table[f"{image}|{title}|{count}|{omega:g}"] = [index]
                table[f"{image}|{ALL_SIX}|{count}|{omega:g}"] = row
    controls = [
        gallery.control(), choice("method", "method", [*models, ALL_SIX]), number("steps", "steps", list(steps)),
        number("guidance", "guidance ω (flows)", guidances),
    ]  # fmt: skip
    values = {
        "image": gallery.first,
        "method": ALL_SIX,
        "steps": max(steps),
        "guidance": guidances[0],
    }
    return TrajectoryPlayer(panels, controls=controls, values=values, table=table, **view)
