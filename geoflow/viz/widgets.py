"""Explorers: what a reader changes is computed anew and flows over a map in the browser.

The `explore_…` functions and `compare_methods` return a `TrajectoryPlayer` that asks the kernel
for new panels when the reader chooses something else; `atlas` has all its answers computed before.
"""

import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from geoflow import metrics, runtime, samplers, schedules, sphere
from geoflow.data import tiles
from geoflow.density import Raster, raster_axes
from geoflow.geolocator import Geolocator
from geoflow.methods import SolverOptions
from geoflow.viz.packing import Panel, data_url, pack, pack_land, read_upload, rounded
from geoflow.viz.player import MODULE, TrajectoryPlayer, choice, number, panels_figure
from geoflow.vmf import Mixture

__all__ = [
    "ALL_SIX", "MODULE", "SIX", "Gallery", "Panel", "TrajectoryPlayer", "atlas", "choice",
    "compare_methods", "explore_density", "explore_guidance", "explore_schedule", "explore_sphere",
    "explore_timesteps", "number", "pack", "pack_land", "panels_figure", "smoothed",
]  # fmt: skip

STATES = 81  # sent of a trajectory at most
KERNEL_KM = 200.0  # what samples are smoothed with where no density is computed
REFERENCE_STEPS, REFERENCE_POINTS = 128, 64  # of the solution that errors are measured against
STEPS = number("steps", "steps", (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256))
GUIDANCE = number("guidance", "guidance ω", (0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0))
SCHEDULES = (*schedules.SCHEDULES, schedules.FEW_STEPS)
SMOOTHED, EXACT = "smoothed samples", "exact"
SIX = {
    "Riemannian flow, S²": "tiles",
    "flow matching, R³": "tiles-flow",
    "diffusion, R³": "tiles-diffusion",
    "von Mises–Fisher": "tiles-vmf",
    "mixture of three vMF": "tiles-vmf-mixture",
    "land, without looking": "land",
}
"""The six methods side by side: their titles, and the shipped models."""
ALL_SIX = "all six"


class Gallery:
    """Named images, their true places, and their embeddings, which are made when they are needed.

    Args:
        images: {name: image}, one image, a list of them, or None for the six example tiles.
        truth: {name: (latitude, longitude)}, or one place for one image.
    """

    def __init__(self, images=None, truth=None):
        if images is None:
            truth = tiles.EXAMPLES
            images = {name: tiles.tile(*place) for name, place in truth.items()}
        if not isinstance(images, Mapping):
            images = list(images) if isinstance(images, (list, tuple)) else [images]
            files = [isinstance(image, (str, Path)) for image in images]
            names = [
                Path(images[i]).stem if file else f"image {i + 1}" for i, file in enumerate(files)
            ]
            images = dict(zip(names, images, strict=True))
        if not images:
            raise ValueError("no images; expected at least one")
        self.images = {
            name: Image.open(image) if isinstance(image, (str, Path)) else image
            for name, image in images.items()
        }
        if truth is not None and not isinstance(truth, Mapping):
            truth = dict(zip(self.images, [truth] if np.ndim(truth) == 1 else truth, strict=True))
        self.truths = dict(truth or {})
        self._embedded: dict[tuple[int, str], Tensor] = {}

    def control(self) -> dict:
        pictures = {name: data_url(image) for name, image in self.images.items()}
        control = {"name": "image", "label": "image", "kind": "image"}
        return {**control, "options": list(pictures), "images": pictures}

    def picture(self, name: str) -> Image.Image:
        """The image of a name, or of the data: address of an upload."""
        return self.images[name] if name in self.images else read_upload(name)

    def about(self, name: str) -> dict[str, Any]:
        """What a panel shows of an image; only an upload needs its picture there."""
        picture = None if name in self.images else self.picture(name)
        return {"image": picture, "truth": self.truths.get(name)}

    def cond(self, geo: Geolocator, name: str) -> Tensor | None:
        """The embedding (1, C), or None for a method that looks at no image."""
        if geo.encoder is None:
            return None
        key = id(geo.encoder), name
        if key not in self._embedded:
            self._embedded[key] = geo.embed(self.picture(name))
        return self._embedded[key]


def _explorer(gallery: Gallery, controls: list[dict], values: dict, answer, view: dict):
    """A player with a choice of images before its other controls."""
    controls, values = (
        [gallery.control(), *controls],
        {"image": next(iter(gallery.images)), **values},
    )
    return TrajectoryPlayer(controls=controls, values=values, answer=answer, **view)


def _model(geo: Geolocator | None) -> Geolocator:
    return geo if geo is not None else Geolocator.from_pretrained("tiles")


def _flow(geo: Geolocator | None) -> Geolocator:
    """A model whose points move; a closed form is refused."""
    geo = _model(geo)
    if not geo.model.guidable:
        raise ValueError(f"method {geo.method!r} has no timesteps to explore; it is a closed form")
    return geo


def _six() -> dict[str, Geolocator]:
    return {title: Geolocator.from_pretrained(name) for title, name in SIX.items()}


def _solver_control(geo: Geolocator) -> dict:
    more = [samplers.DDIM] if geo.method == "diffusion" else []
    return choice("solver", "solver", [*samplers.FIXED, *more])


def _options(v: dict, guidance: float | None = None) -> SolverOptions:
    """The solver's options among chosen values."""
    omega = v.get("guidance", 0.0) if guidance is None else guidance
    return SolverOptions(int(v["steps"]), v.get("solver", "rk4"), float(omega))


def with_schedule(geo: Geolocator, name: str) -> Geolocator:
    """The same model with its steps placed by another schedule."""
    return Geolocator(geo.network, geo.method, name, geo.encoder, geo.provenance)


def trajectories(
    geo: Geolocator, cond: Tensor | None, n: int, options: SolverOptions, seed: int = 0
):
    """Trajectories of n points, (states, n, 2) degrees, and the times of their states.

    Of many steps only `STATES` states are kept, evenly chosen. The points of a closed form rest:
    they have one state.
    """
    if not geo.model.guidable:
        return geo.sample(cond=cond, n=n, seed=seed), torch.ones(1)
    paths = geo.trajectories(cond=cond, n=n, seed=seed, **vars(options))[:, 0]
    count = min(STATES, options.steps + 1)
    kept = torch.linspace(0, options.steps, count, dtype=torch.float64).round().long()
    return paths[kept], geo.model.times(options)[kept]


def _panel(
    geo: Geolocator,
    gallery: Gallery,
    image: str,
    n: int,
    options: SolverOptions,
    seed: int,
    **shown,
):
    """A panel of n points that look for an image; `shown` are further fields of `Panel`."""
    paths, times = trajectories(geo, gallery.cond(geo, image), n, options, seed)
    return Panel(paths, times=times, **gallery.about(image), **shown)


def _error_against_reference(geo: Geolocator, gallery: Gallery, n: int, seed: int):
    """A function (image, guidance, samples (n, 2)) → their error in words.

    The error is the median distance of `REFERENCE_POINTS` samples from where RK4 with
    `REFERENCE_STEPS` steps takes the same points; this reference is computed once.
    """
    noise = geo.model.noise((n,), torch.Generator().manual_seed(seed))[None, :REFERENCE_POINTS]

    @functools.cache
    def reference(image: str, guidance: float) -> Tensor:
        cond = gallery.cond(geo, image)
        fine: dict[str, Any] = dict(steps=REFERENCE_STEPS, guidance=guidance)
        return geo.sample(cond=cond, noise=noise, **fine)[0].double()

    def error(image: str, guidance: float, samples: Tensor) -> str:
        expected = reference(image, guidance)
        found, expected = map(sphere.from_latlon, (samples[: len(expected)].double(), expected))
        km = float(sphere.distance_km(found, expected).median())
        number = f"{km:,.0f}" if km >= 10 else f"{km:.2g}" if km >= 0.1 else "below 0.1"
        return f"median error {number} km"

    return error


def explore_timesteps(
    geo: Geolocator | None = None,
    images=None,
    truth=None,
    *,
    n: int = 500,
    seed: int = 0,
    **view: Any,
) -> TrajectoryPlayer:
    """Choose steps, solver, schedule and guidance; the error against a fine solution is shown.

    >>> player = explore_timesteps(n=10)
    >>> player.select(steps=4, solver="euler")
    >>> player.panels[0]["note"].split(" · ")[0]
    '4 evaluations'

    Args:
        geo: a flow; None: the shipped model.
        images, truth: see `Gallery`.
        n: points.
        seed: of their starting places.
        view: see `TrajectoryPlayer`.

    Raises:
        ValueError: a method without trajectories.
    """
    geo, gallery = _flow(geo), Gallery(images, truth)
    error = _error_against_reference(geo, gallery, n, seed)
    scheduled = functools.cache(lambda name: with_schedule(geo, name))
    controls = [STEPS, _solver_control(geo), choice("schedule", "schedule", SCHEDULES), GUIDANCE]
    values = dict(steps=8, solver="rk4", schedule=geo.model.schedule_name, guidance=0.0)

    def answer(v: dict) -> Iterable[list[Panel]]:
        options, image = _options(v), v["image"]
        note = f"{samplers.evaluations(options.solver, options.steps)} evaluations"
        panel = _panel(scheduled(v["schedule"]), gallery, image, n, options, seed, note=note)
        yield [panel]
        distance = error(image, options.guidance, panel.trajectories[-1])
        yield [replace(panel, note=f"{note} · {distance}")]

    return _explorer(gallery, controls, values, answer, view)


def explore_guidance(
    geo: Geolocator | None = None,
    images=None,
    truth=None,
    *,
    n: int = 300,
    seed: int = 0,
    **view: Any,
) -> TrajectoryPlayer:
    """The same points without guidance and with it, in step, and how much they gather.

    Arguments as in `explore_timesteps`.
    """
    geo, gallery = _flow(geo), Gallery(images, truth)

    @functools.lru_cache(maxsize=16)  # the unguided half need not be computed again for every ω
    def panel(image: str, options: SolverOptions) -> Panel:
        shown = _panel(geo, gallery, image, n, options, seed, title=f"ω = {options.guidance:g}")
        middle, _, radius = metrics.best_places(sphere.from_latlon(shown.trajectories[-1]), 1)
        note = f"half within {float(radius[0]):,.0f} km of the best place"
        return replace(shown, note=note, best=sphere.to_latlon(middle))

    def answer(v: dict) -> Iterable[list[Panel]]:
        yield [panel(v["image"], _options(v, omega)) for omega in (0.0, v["guidance"])]

    return _explorer(gallery, [GUIDANCE, STEPS], dict(guidance=2.0, steps=16), answer, view)


def explore_schedule(
    geo: Geolocator | None = None,
    images=None,
    truth=None,
    *,
    n: int = 300,
    seed: int = 0,
    **view: Any,
) -> TrajectoryPlayer:
    """Every schedule with the same number of steps, in step: where its steps lie, and its error.

    Arguments as in `explore_timesteps`.
    """
    geo, gallery = _flow(geo), Gallery(images, truth)
    error = _error_against_reference(geo, gallery, n, seed)
    scheduled = {name: with_schedule(geo, name) for name in SCHEDULES}

    def answer(v: dict) -> Iterable[list[Panel]]:
        image, options, panels = v["image"], _options(v), []
        for name, model in scheduled.items():
            panel = _panel(model, gallery, image, n, options, seed, title=name)
            panels.append(replace(panel, note=error(image, 0.0, panel.trajectories[-1])))
        yield panels

    few = number("steps", "steps", [steps for steps in STEPS["options"] if steps <= 64])
    controls, values = [few, _solver_control(geo)], dict(steps=8, solver="midpoint")
    return _explorer(gallery, controls, values, answer, view)


def explore_density(
    geo: Geolocator | None = None, images=None, truth=None, *, n: int = 1024, k: int = 3,
    seed: int = 0, **view: Any,
) -> TrajectoryPlayer:  # fmt: skip
    """Pick a tile, or upload an image: its density over the Earth, localizability, k best places.

    At first n samples are shown, smoothed by a kernel of `KERNEL_KM`; "exact" computes the density
    itself, in some ten seconds.

    Args:
        geo: any model; None: the shipped one.
        images, truth: see `Gallery`.
        n: samples.
        k: best places.
        seed: of the samples.
        view: see `TrajectoryPlayer`.
    """
    geo, gallery = _model(geo), Gallery(images, truth)
    exact = functools.cache(lambda image: geo.density(cond=gallery.cond(geo, image)))
    known: set[str] = set()

    def answer(v: dict) -> Iterable[list[Panel]]:
        image, cond = v["image"], gallery.cond(geo, v["image"])
        samples = sphere.from_latlon(geo.sample(cond=cond, n=n, seed=seed)[0])
        places, mass, _ = metrics.best_places(samples, k)
        note = f"{k} best: {', '.join(f'{100 * float(m):.0f} %' for m in mass)}"
        shown: dict[str, Any] = dict(best=sphere.to_latlon(places), **gallery.about(image))
        panel = Panel(torch.zeros(1, 0, 2), note=note, density=smoothed(samples), **shown)
        if v["density"] == SMOOTHED or image not in known:
            yield [panel]
        bits = float(geo.localizability(cond=cond, n=min(n, 256), seed=seed))
        note = f"localizability {bits:.1f} bits (uniform: −3.7) · {note}"
        if v["density"] == EXACT:
            known.add(image)
            density = exact(image)
            panel, note = replace(panel, density=density), f"{note} · ∫p = {density.integral:.3f}"
        yield [replace(panel, note=note)]

    controls = [choice("density", "density", [SMOOTHED, EXACT])]
    return _explorer(gallery, controls, dict(density=SMOOTHED), answer, view)


def smoothed(samples: Tensor, degrees: float = 2.0) -> Raster:
    """The density of samples, (n, 3) unit vectors, each smoothed to a vMF kernel of `KERNEL_KM`."""
    lat, lon = raster_axes(degrees)
    grid = torch.stack(torch.meshgrid(lat, lon, indexing="ij"), -1)
    x = sphere.from_latlon(grid).reshape(1, -1, 3).float()
    weight = torch.full((1, len(samples)), -math.log(len(samples)))
    kappa = torch.full((1, len(samples)), (sphere.EARTH_RADIUS_KM / KERNEL_KM) ** 2)
    mixture = Mixture(weight, samples.float()[None], kappa)
    log_density = torch.cat([mixture.log_prob(part) for part in x.split(2048, 1)], 1)
    return Raster(lat, lon, log_density.reshape(len(lat), len(lon)))


def _method_panel(
    geo: Geolocator,
    gallery: Gallery,
    image: str,
    n: int,
    options: SolverOptions,
    seed: int,
    **shown,
):
    if geo.model.guidable:
        return _panel(geo, gallery, image, n, options, seed, **shown)
    options, note = replace(options, guidance=0.0), "closed form"
    return _panel(geo, gallery, image, n, options, seed, note=note, **shown)


def compare_methods(
    models: Mapping[str, Geolocator] | None = None, images=None, truth=None, *, n: int = 500,
    seed: int = 0, **view: Any,
) -> TrajectoryPlayer:  # fmt: skip
    """Methods side by side and in step; the points of a closed form rest.

    Args:
        models: {title: model}, or one model beside the six; None: the six shipped ones.
        images, truth: see `Gallery`.
        n: points of each.
        seed: of their starting places.
        view: see `TrajectoryPlayer`.
    """
    own = {models.method: models} if isinstance(models, Geolocator) else {}
    chosen = _six() | own if models is None or own else dict(models)
    gallery = Gallery(images, truth)

    def answer(v: dict) -> Iterable[list[Panel]]:
        yield [
            _method_panel(geo, gallery, v["image"], n, _options(v), seed, title=title, color=i)
            for i, (title, geo) in enumerate(chosen.items())
        ]

    controls = [STEPS, {**GUIDANCE, "label": "guidance ω (flows)"}]
    return _explorer(gallery, controls, dict(steps=16, guidance=0.0), answer, view)


def explore_sphere(x=(48.9, 2.4), y=(35.7, 139.7), **view: Any) -> TrajectoryPlayer:
    """Two places to drag, the geodesic between them, and the vectors that log gives at each.

    The slider moves the point that exp leads to.

    >>> explore_sphere((0, 0), (0, 90)).values
    {'x': [0.0, 0.0], 'y': [0.0, 90.0]}

    Args:
        x, y: latitude and longitude, degrees.
        view: see `TrajectoryPlayer`.

    Raises:
        ValueError: a latitude or longitude out of range.
    """
    controls = [{"name": name, "label": name, "kind": "place"} for name in ("x", "y")]
    values = {"x": rounded(x)[0], "y": rounded(y)[0]}

    def answer(v: dict) -> Iterable[list[Panel]]:
        ends = sphere.from_latlon(torch.tensor([v["x"], v["y"]], dtype=torch.float64))
        t = torch.linspace(0, 1, STATES, dtype=torch.float64)[:, None]
        yield [Panel(sphere.to_latlon(sphere.geodesic(ends[:1], ends[1:], t)), moved_by_hand=True)]

    look: dict[str, Any] = {"projection": "globe", "center": (45.0, 60.0), "position": 0.5, **view}
    return TrajectoryPlayer(controls=controls, values=values, answer=answer, **look)


def atlas(
    models: Mapping[str, Geolocator] | None = None, images=None, truth=None, *, n: int = 240,
    steps: Sequence[int] = (1, 2, 4, 8, 16, 32), guidances: Sequence[float] = (0.0, 1.0, 3.0),
    seed: int = 0, **view: Any,
) -> TrajectoryPlayer:  # fmt: skip
    """Images × methods × steps × guidance, computed before: every control works without a kernel.

    This takes a minute or two on a laptop.

    Args:
        models: {title: model}; None: the six shipped ones.
        images, truth: see `Gallery`.
        n: points.
        steps, guidances: of RK4; closed forms have neither.
        seed: of their starting places.
        view: see `TrajectoryPlayer`.
    """
    gallery, models = Gallery(images, truth), models or _six()
    panels: list[Panel] = []
    number_of: dict[tuple, int] = {}
    table: dict[str, list[int]] = {}
    for image in runtime.progress(gallery.images, desc="images"):
        for omega, count in itertools.product(guidances, steps):
            row = []
            for color, (title, geo) in enumerate(models.items()):
                key = (image, title, count, omega) if geo.model.guidable else (image, title)
                if key not in number_of:
                    number_of[key] = len(panels)
                    options, shown = (
                        SolverOptions(count, "rk4", omega),
                        dict(title=title, color=color),
                    )
                    panels.append(_method_panel(geo, gallery, image, n, options, seed, **shown))
                row.append(number_of[key])
            for title, numbers in (*zip(models, ([i] for i in row), strict=True), (ALL_SIX, row)):
                table[f"{image}|{title}|{count}|{omega:g}"] = numbers
    controls = [
        gallery.control(),
        choice("method", "method", [*models, ALL_SIX]),
        number("steps", "steps", steps),
        number("guidance", "guidance ω (flows)", guidances),
    ]
    values = dict(image=next(iter(gallery.images)), method=ALL_SIX)
    values |= dict(steps=max(steps), guidance=guidances[0])
    return TrajectoryPlayer(panels, controls=controls, values=values, table=table, **view)
