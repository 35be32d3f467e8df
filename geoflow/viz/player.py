"""The trajectory player: points that flow over a map, drawn by a browser.

`TrajectoryPlayer` sends trajectories once and the JavaScript module `static/player.js` draws them:
wherever anywidget works, in a page without a kernel (`save_html`), inside an exported notebook
(`embed`). Where no script runs, `contact_sheet` draws a figure.
"""

import base64
import html
import itertools
import json
import math
import string
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import matplotlib
import torch
import traitlets

from geoflow import sphere
from geoflow.runtime import choose, write_atomically
from geoflow.viz import maps
from geoflow.viz.packing import Panel, as_panels, pack, pack_land, rounded

_FILES = (Path(__file__).parent / "static").iterdir()
STATIC = {file.name: file.read_text(encoding="utf-8") for file in _FILES}
MODULE = "\n".join(
    STATIC[part] for part in ("geometry.js", "flowmap.js", "drawing.js", "player.js")
)
STYLE = STATIC["player.css"]


def choice(name: str, label: str, options: Iterable) -> dict:
    """A control, which a reader sets: one of a few options."""
    return {"name": name, "label": label, "kind": "choice", "options": list(options)}


def number(name: str, label: str, options: Iterable[float]) -> dict:
    """A control: a slider over numbers; Python may also choose any number between its ends."""
    return {"name": name, "label": label, "kind": "range", "options": list(options)}


def _check(control: dict, value) -> None:
    name, kind, options = control["label"], control["kind"], control.get("options", ())
    if kind == "choice" or (kind == "image" and not str(value).startswith("data:")):
        choose(name, value, options)
    elif kind == "range":
        whole = all(isinstance(option, int) for option in options)
        known = isinstance(value, int | float) and not isinstance(value, bool)
        if not known or not options[0] <= value <= options[-1] or (whole and value != int(value)):
            expected = f"a {'whole ' if whole else ''}number from {options[0]} to {options[-1]}"
            raise ValueError(f"{name} {value!r}; expected {expected}")
    elif kind == "place":
        sphere.from_latlon(torch.tensor(value, dtype=torch.float64))


class TrajectoryPlayer(anywidget.AnyWidget):
    """Trajectories on a map that you can drag, with a slider over the steps and a play button.

    Trajectories that cannot be drawn raise no error: the widget shows a `message`, so that a
    notebook's cell is never blank. Options and values that do not exist raise a `ValueError`.

    >>> from geoflow import Geolocator, widgets
    >>> from geoflow.data import tiles
    >>> geo = Geolocator.from_pretrained("tiles")
    >>> paths = geo.trajectories(tiles.tile(61, 97), n=100, steps=8, seed=0)[:, 0]
    >>> len(widgets.TrajectoryPlayer(paths, truth=(61, 97)).data)
    3600

    Args:
        trajectories: (steps + 1, n, 2) degrees, noise first; (steps + 1, B, n, 2) for B maps in
            step, as `Geolocator.trajectories` gives them; {title: (steps + 1, n, 2)}; or a list of
            `Panel`. Steps may differ between maps.
        times: (steps + 1,) times of the states; None: equally spaced.
        truth: latitude and longitude of the true place, or one for each map.
        best: (k, 2) best places, or one such for each map: `Geolocator.predict(…).latlon`.
        images, titles: a PIL image and a title, or one for each map.
        position: share of the steps at the beginning, 0 (noise) to 1 (places).
        projection, trails: "flat" (Equal Earth) or "globe"; "none", "short", "long", "whole way".
        together: all on one map, each in its colour, rather than side by side.
        center: latitude and longitude in the middle of the map.
        controls, values: what the reader can choose, see `choice` and `number`; and what is chosen.
        answer: chosen values, {name: value} → lists of panels, to be shown one after the other.
        table: answers computed before: values, joined by ``|`` → numbers of panels.
        jumps: a flow map that the browser computes, as `browser.pack_map` makes it.
        keep: put the page of `to_html` into the notebook's output too, for readers without a
            kernel. It takes 4/3 of `data`, plus 100 kB.
    """

    _esm = MODULE
    _css = STYLE
    # What the JavaScript reads; `page` marks what a page without a kernel needs.
    panels = traitlets.List().tag(sync=True, page=True)  # a dict for each map, see `packing.pack`
    data = traitlets.Bytes().tag(sync=True, page=True)  # places and densities of all panels
    land = traitlets.Bytes().tag(sync=True, page=True)  # the coastline, see `packing.pack_land`
    controls = traitlets.List().tag(sync=True, page=True)  # what the reader can choose
    values = traitlets.Dict().tag(sync=True, page=True)  # what is chosen: name → value
    table = traitlets.Dict().tag(sync=True, page=True)  # values joined by | → numbers of panels
    jumps = traitlets.Dict().tag(sync=True, page=True)  # a network for the browser, its sizes
    network = traitlets.Bytes().tag(sync=True, page=True)  # and its weights
    asked = traitlets.Int(0).tag(sync=True, page=True)  # number of the reader's last question
    answered = traitlets.Int(0).tag(sync=True, page=True)  # number of the last answer
    message = traitlets.Unicode("").tag(sync=True, page=True)  # an error, shown above the maps
    live = traitlets.Bool(True).tag(sync=True, page=True)  # whether there is a kernel
    position = traitlets.Float(1.0).tag(sync=True, page=True)  # share of the way to the places
    center = traitlets.List([0.0, 0.0]).tag(sync=True, page=True)
    projection = traitlets.Unicode("flat").tag(sync=True, page=True)
    trails = traitlets.Unicode("short").tag(sync=True, page=True)
    together = traitlets.Bool(False).tag(sync=True, page=True)

    def __init__(
        self, trajectories=None, *, times=None, truth=None, best=None, images=None, titles=None,
        position: float = 1.0, projection: str = "flat", trails: str = "short",
        together: bool = False, center: tuple[float, float] = (0.0, 0.0),
        controls: Sequence[dict] = (), values: Mapping[str, Any] | None = None,
        answer: Callable[[dict], Iterable[list[Panel]]] | None = None,
        table: dict[str, list[int]] | None = None, jumps: tuple[dict, bytes] = ({}, b""),
        keep: bool = False,
    ):  # fmt: skip
        choose("projection", projection, ("flat", "globe"))
        choose("trails", trails, ("none", "short", "long", "whole way"))
        self.shown: list[Panel] = []
        self._answer, self._done, self.keep = None, None, keep
        view = dict(position=position, projection=projection, trails=trails, together=together)
        asking = dict(controls=list(controls), values=dict(values or {}), table=table or {})
        computed = dict(zip(("jumps", "network"), jumps, strict=True))
        super().__init__(land=pack_land(), center=rounded(center)[0], **view, **asking, **computed)
        if answer is None:
            try:
                self.show(as_panels(trajectories, times, truth, best, images, titles))
            except ValueError as error:
                self.message = str(error)
        self._answer = answer
        self._ask()
        self.observe(self._ask, ["values", "asked"])

    def show(self, panels: Sequence[Panel]) -> None:
        """Show other panels, in one message to the browser. Errors are those of `packing.pack`."""
        described, data, complaint = pack(panels)
        self.shown = list(panels)
        with self.hold_sync():
            self.panels, self.data, self.message = described, data, complaint

    def _ask(self, change=None) -> None:
        """Answer what the reader chose. An error is shown to the reader, and raised.

        A question changes `asked` and `values`, both observed, but it is answered once.
        """
        question = (dict(self.values), self.asked)
        if self._answer is None or question == self._done:
            return
        self._done = question
        try:
            for control in self.controls:
                if (name := control["name"]) not in self.values:
                    expected = ", ".join(repr(control["name"]) for control in self.controls)
                    raise ValueError(f"values lack {name!r}; expected {expected}")
                _check(control, self.values[name])
            for panels in self._answer(question[0]):
                self.show(panels)
        except Exception as error:
            self.message = str(error) or type(error).__name__
            raise
        finally:
            self.answered = self.asked

    def select(self, **values) -> None:
        """Choose as a reader would: `player.select(steps=4)`. Unknown names or values raise."""
        for name in values:
            choose("control", name, [control["name"] for control in self.controls])
        self.values = {**self.values, **values}

    def to_html(self, title: str = "geoflow", text: str = "") -> str:
        """One page that needs neither kernel nor network; its title is shown if `text` is."""
        return page({"": self}, title, text)

    def save_html(self, file, title: str = "geoflow", text: str = "") -> Path:
        """Write the page of `to_html` to a file and return its path."""
        return write_page(file, self.to_html(title, text))

    def embed(self, height: int = 560):
        """The page of `to_html` in a notebook's frame of `height` pixels; it needs no kernel."""
        from IPython.display import HTML

        style = f"width: 100%; height: {height}px; border: 0"
        frame = f'<iframe srcdoc="{html.escape(self.to_html())}" style="{style}"></iframe>'
        return HTML(f"<div>{frame}</div>")

    def contact_sheet(self, moments: Sequence[float] = (0, 1 / 3, 2 / 3, 1)) -> maps.MapFigure:
        """A figure for readers without scripts: each panel has a row of maps, at shares of the way.

        The `moments` go from 0 (noise) to 1 (places), see `maps.states_along`. A density or closed
        form takes one map.
        """
        by_hand = any(panel.moved_by_hand for panel in self.shown)
        if by_hand or all(len(panel.trajectories) == 1 for panel in self.shown):
            moments = (1.0,)
        views = ("orthographic", "equal-earth") if by_hand else ("equal-earth",)
        cells = list(itertools.product(self.shown, moments, views))
        columns = len(moments) if len(self.shown) > 1 and len(moments) > 1 else min(2, len(cells))
        rows = math.ceil(len(cells) / columns)
        size = 7.0, rows * (maps.EQUAL_EARTH_RATIO * 7.0 / columns + 0.3)
        with matplotlib.rc_context({"font.size": 7, "axes.titlesize": 7}):
            figure = maps.MapFigure(figsize=size, layout="constrained")
            grid = figure.add_gridspec(rows, columns)
            for cell, (panel, share, view) in enumerate(cells):
                ends = share == moments[0], share == moments[-1]
                place = grid[divmod(cell, columns)]
                ax = _draw_panel(panel, share, view, place, ends, bar=len(cells) == 1)
                ax.set_title(textwrap.fill(ax.get_title(), 100 // columns), pad=2)
                if panel.truth is not None:
                    maps.draw_truth(ax, panel.truth)
        return figure

    def __repr__(self) -> str:
        return f"TrajectoryPlayer({len(self.panels)} maps, {len(self.data):,} bytes)"

    def _repr_mimebundle_(self, **kwargs):
        bundle, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
        if self.keep:
            bundle["text/html"] = self.embed().data
        return bundle, metadata


def write_page(file, text: str) -> Path:
    """Write a page to a file, whole or not at all, and return its path."""
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)
    return path


def page(players: Mapping[str, TrajectoryPlayer], title: str = "geoflow", text: str = "") -> str:
    """One page for some players, heading → player; it needs neither kernel nor network.

    >>> len(page({"one": TrajectoryPlayer(torch.zeros(2, 3, 2))})) > 50_000
    True
    """
    title, text, described = html.escape(title), html.escape(text), []
    for heading, player in players.items():
        state = {name: getattr(player, name) for name in player.trait_names(page=True)}
        binary = {name: state.pop(name) for name in ("data", "land", "network")}
        binary = {name: base64.b64encode(value).decode() for name, value in binary.items()}
        state = state | {"live": False}
        described.append({"title": heading, "state": state, "binary": binary})
    return string.Template(STATIC["page.html"]).substitute(
        title=title,
        head=f"<h1>{title}</h1>" if text else "",
        text=f"<p>{text}</p>" if text else "",
        module=MODULE,
        style=STYLE,
        players=_script(described),
    )


def _script(value) -> str:
    """JSON that may stand in a script element: no "<" opens a tag or a comment in it."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _draw_panel(panel: Panel, share: float, view: str, place, ends: tuple[bool, bool], bar: bool):
    """A panel's map at a share of the way; `ends`: it is the first, the last of its row.

    `bar` adds a colour bar to a density.
    """
    latlon, times = maps.checked(panel.trajectories, panel.times, least=1)
    latlon = latlon[:, latlon.isfinite().all(-1).all(0)]
    (state,) = maps.states_along(latlon, (share,))
    lat, lon = latlon[len(latlon) // 2, 0].tolist() if panel.moved_by_hand else (0.0, 0.0)
    ax = maps.world(view, (lat, lon if view == "orthographic" else 0.0), ax=place)
    moving = len(latlon) > 1 and not panel.moved_by_hand
    time = f"t\u00a0=\u00a0{times[state]:.2f}" if moving else ""  # a line does not break there
    words = panel.title if ends[0] else "", time, panel.note if ends[1] else ""
    ax.set_title(" · ".join(filter(None, words)))
    if panel.density is not None:
        maps.draw_density(ax, panel.density, colorbar=bar)
    if panel.moved_by_hand:
        maps.draw_trajectories(ax, latlon)
    else:
        maps.draw_points(ax, latlon[state], maps.TIME_COLORS(1.0), 3)
    if panel.best is not None and ends[1]:
        maps.draw_guesses(ax, torch.as_tensor(panel.best))
    return ax
