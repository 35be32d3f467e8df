"""Explorers: a reader changes a setting, and the new answer flows over a map in the browser.

They return a `TrajectoryPlayer` that asks the kernel for new panels when the reader chooses
something else. `atlas` computes all its answers in advance.
"""

import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from geoflow import runtime, samplers, schedules, sphere
from geoflow.data import tiles
from geoflow.density import Raster, raster_axes
from geoflow.flowmap import MAP
from geoflow.flowmap.network import MOST_GUIDANCE
from geoflow.geolocator import Geolocator
from geoflow.methods import SolverOptions
from geoflow.scores import metrics
from geoflow.viz.browser import JUMPS, pack_map
from geoflow.viz.charts import METHODS
from geoflow.viz.packing import Panel, data_url, read_upload, rounded
from geoflow.viz.player import TrajectoryPlayer, choice, number
from geoflow.vmf import Mixture

STATES = 81  # most states of a trajectory that are sent to the browser
KERNEL_KM = 200.0  # width of the kernels that smooth samples where no density is computed
# Steps and points of the solution that errors are measured against.
REFERENCE_STEPS, REFERENCE_POINTS = 128, 64
STEPS = number("steps", "steps", (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256))
GUIDANCE = number("guidance", "guidance ω", (0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 10.0))
OF_FLOWS = {"label": "guidance ω (flows)"}  # label of the control where closed forms are shown too
SCHEDULES = (*schedules.SCHEDULES, *schedules.SAMPLING)
SMOOTHED, EXACT = "smoothed samples", "exact"
SIX = {  # title of a method → the shipped model
    METHODS["riemannian"]: "tiles",
    METHODS["flow"]: "tiles-flow",
    METHODS["diffusion"]: "tiles-diffusion",
    METHODS["vmf"]: "tiles-vmf",
    METHODS["vmf-mixture"]: "tiles-vmf-mixture",
    METHODS["land"]: "land",
}
ALL_SIX = "all six"


class Gallery:
    """Named images with their true places, and embeddings that are computed when they are needed.

    Args:
        images: {name: image}, one image, a list of them, or None for the six example tiles.
        truth: {name: (latitude, longitude)}, or one place for each image.
    """

    def __init__(self, images=None, truth=None):
        if images is None:
            truth = tiles.EXAMPLES
            images = {name: tiles.tile(*place) for name, place in truth.items()}
        if not isinstance(images, Mapping):
            images = images if isinstance(images, (list, tuple)) else [images]
            images = {
                Path(image).stem if isinstance(image, (str, Path)) else f"image {i}": image
                for i, image in enumerate(images, 1)
            }
        if not images:
            raise ValueError("no images; expected at least one")
        self.images = dict(images)
        for name, image in images.items():
            if isinstance(image, (str, Path)):
                self.images[name] = Image.open(image)
        if truth is not None and not isinstance(truth, Mapping):
            truth = dict(zip(self.images, [truth] if np.ndim(truth) == 1 else truth, strict=True))
        self.truths = dict(truth or {})
        self._embedded: dict[tuple[int, str], Tensor] = {}

    def about(self, name: str) -> dict[str, Any]:
        """What a panel shows of an image. Only an upload (a data: address) needs its picture."""
        upload = None if name in self.images else read_upload(name)
        return {"image": upload, "truth": self.truths.get(name)}

    def cond(self, geo: Geolocator, name: str) -> Tensor | None:
        """The embedding (1, C), or None for a method that looks at no image."""
        if geo.encoder is None:
            return None
        key = id(geo.encoder), name
        if key not in self._embedded:
            image = self.images[name] if name in self.images else read_upload(name)
            self._embedded[key] = geo.embed(image)
        return self._embedded[key]

    def player(self, controls: list[dict], values: dict, view: dict, **answers) -> TrajectoryPlayer:
        """A player whose first control chooses an image."""
        pictures = {name: data_url(image) for name, image in self.images.items()}
        images = choice("image", "image", pictures) | {"kind": "image", "images": pictures}
        values = {"image": next(iter(pictures)), **values}
        return TrajectoryPlayer(controls=[images, *controls], values=values, **answers, **view)


@dataclass(frozen=True)
class Points:
    """Points of a model that flow from the same starting places for all images of a gallery."""

    geo: Geolocator
    gallery: Gallery
    n: int
    seed: int

    def panel(self, image: str, options: SolverOptions, **shown) -> Panel:
        """At most `STATES` states of the trajectories. Closed-form points stay put."""
        shown = {**self.gallery.about(image), **shown}
        cond = self.gallery.cond(self.geo, image)
        given: dict[str, Any] = dict(cond=cond, n=self.n, seed=self.seed)
        how: dict[str, Any] = dict(steps=options.steps, solver=options.solver)
        if not self.geo.model.guidable:
            return Panel(self.geo.sample(**given), times=(1.0,), note="closed form", **shown)
        paths = self.geo.trajectories(**given, **how, guidance=options.guidance)[:, 0]
        count = min(STATES, options.steps + 1)
        kept = torch.linspace(0, options.steps, count, dtype=torch.float64).round().long()
        times = self.geo.model.times(options)[kept]
        return Panel(paths[kept], times=times, steps=options.steps, **shown)

    def reference(self, image: str, guidance: float = 0.0) -> Tensor:
        """Samples (m, 2) of the first points by a solver with many steps."""
        noise = self.geo.model.noise((self.n,), torch.Generator().manual_seed(self.seed))
        noise, cond = noise[None, :REFERENCE_POINTS], self.gallery.cond(self.geo, image)
        fine: dict[str, Any] = dict(steps=REFERENCE_STEPS, solver="rk4", guidance=guidance)
        return self.geo.sample(cond=cond, noise=noise, **fine)[0]


def _with_error(panel: Panel, reference: Tensor) -> Panel:
    """A panel whose note ends with the solver's error: the distance from the reference."""
    samples = panel.trajectories[-1, : len(reference)]
    km = sphere.distance_km(*(sphere.from_latlon(x.double()) for x in (samples, reference)))
    median = float(km.median())
    text = f"{median:,.0f}" if median >= 10 else f"{median:.2g}" if median >= 0.1 else "below 0.1"
    error = f"solver's error {text} km (median)"
    return replace(panel, note=f"{panel.note} · {error}" if panel.note else error)


def _flow(geo: Geolocator | None) -> Geolocator:
    """The given model, or the shipped one; a ValueError for a closed form."""
    geo = geo if geo is not None else Geolocator.from_pretrained("tiles")
    if not geo.model.guidable:
        raise ValueError(f"method {geo.method!r} has no timesteps to explore; it is a closed form")
    return geo


def _six() -> dict[str, Geolocator]:
    return {title: Geolocator.from_pretrained(name) for title, name in SIX.items()}


def with_schedule(geo: Geolocator, name: str) -> Geolocator:
    """The same model with its steps placed by another schedule."""
    return Geolocator(geo.network, geo.method, name, geo.encoder, geo.provenance)


def _solver(geo: Geolocator, flow_map: Geolocator | None = None) -> dict:
    own = [samplers.DDIM] if geo.method == "diffusion" else []
    jumps = [samplers.JUMP] if MAP in (geo.method, flow_map and flow_map.method) else []
    return choice("solver", "solver", [*samplers.FIXED, *own, *jumps])


def _guidance(geo: Geolocator) -> dict:
    """The guidance that a model can have."""
    most = MOST_GUIDANCE if geo.method == MAP else math.inf
    return {**GUIDANCE, "options": [omega for omega in GUIDANCE["options"] if omega <= most]}


def _options(v: dict, geo: Geolocator | None = None) -> SolverOptions:
    """The solver's options among the chosen values; a flow map jumps if no solver is chosen."""
    usual = samplers.JUMP if geo is not None and geo.method == MAP else "rk4"
    return SolverOptions(int(v["steps"]), v.get("solver", usual), float(v.get("guidance", 0.0)))


def _calls(options: SolverOptions) -> str:
    """How often the network is called: a solver needs two calls for a guided velocity."""
    calls = samplers.evaluations(options.solver, options.steps)
    twice = options.guidance and options.solver != samplers.JUMP
    return f"2 × {calls} evaluations" if twice else f"{calls} evaluations"


def explore_timesteps(
    geo: Geolocator | None = None, images=None, truth=None, *, flow_map: Geolocator | None = None,
    n: int = 500, seed: int = 0, **view,
) -> TrajectoryPlayer:  # fmt: skip
    """Choose steps, solver, schedule and guidance; the error against a fine solution is shown.

    The error is the median distance of `REFERENCE_POINTS` samples from where RK4 with
    `REFERENCE_STEPS` steps takes the same points. The solver `jump` is a flow map's.

    >>> player = explore_timesteps(n=10)
    >>> player.select(steps=4, solver="euler")
    >>> player.panels[0]["note"].split(" · ")[0]
    '4 evaluations'

    Args:
        geo: a flow; None: the shipped model. A closed form raises a `ValueError`.
        images, truth: see `Gallery`.
        flow_map: a map of `geo`, which makes the jumps; None: the shipped one for the shipped
            model, and `geo` itself if it is a flow map.
        n, seed: number of points, and the seed of their starting places.
        view: see `TrajectoryPlayer`.
    """
    if geo is None and flow_map is None:
        flow_map = Geolocator.from_pretrained("tiles-flow-map")
    geo, gallery = _flow(geo), Gallery(images, truth)
    jumping = flow_map or geo
    reference = functools.cache(Points(geo, gallery, n, seed).reference)

    @functools.cache
    def scheduled(name: str, jumps: bool) -> Points:
        return Points(with_schedule(jumping if jumps else geo, name), gallery, n, seed)

    def answer(v: dict) -> Iterable[list[Panel]]:
        options = _options(v)
        points = scheduled(v["schedule"], options.solver == samplers.JUMP)
        panel = points.panel(v["image"], options, note=_calls(options))
        yield [panel]
        yield [_with_error(panel, reference(v["image"], options.guidance))]

    schedule = choice("schedule", "schedule", SCHEDULES)
    controls = [STEPS, _solver(geo, flow_map), schedule, _guidance(geo)]
    values = dict(steps=8, solver="rk4", schedule=geo.model.schedule_name, guidance=0.0)
    return gallery.player(controls, values, view, answer=answer)


def explore_guidance(
    geo: Geolocator | None = None, images=None, truth=None, *, n: int = 300, seed: int = 0, **view
) -> TrajectoryPlayer:
    """The same points without guidance and with it, to compare; see `explore_timesteps`.

    >>> [panel["title"] for panel in explore_guidance(n=10).panels]
    ['ω = 0', 'ω = 2']
    """
    geo = _flow(geo)
    points = Points(geo, Gallery(images, truth), n, seed)

    @functools.lru_cache(maxsize=16)  # the unguided half need not be computed again for every ω
    def panel(image: str, options: SolverOptions) -> Panel:
        shown = points.panel(image, options, title=f"ω = {options.guidance:g}")
        middle, _, radius = metrics.best_places(sphere.from_latlon(shown.trajectories[-1]), 1)
        note = f"half within {float(radius[0]):,.0f} km of the best place"
        return replace(shown, note=note, best=sphere.to_latlon(middle))

    def answer(v: dict) -> Iterable[list[Panel]]:
        guided = _options(v, geo)
        yield [panel(v["image"], options) for options in (replace(guided, guidance=0.0), guided)]

    values = dict(guidance=2.0, steps=16)
    return points.gallery.player([_guidance(geo), STEPS], values, view, answer=answer)


def explore_schedule(
    geo: Geolocator | None = None, images=None, truth=None, *, n: int = 300, seed: int = 0, **view
) -> TrajectoryPlayer:
    """Every schedule with the same number of steps, and its error; see `explore_timesteps`.

    >>> [panel["title"] for panel in explore_schedule(n=10).panels][:2]
    ['linear', 'sigmoid']
    """
    geo, gallery = _flow(geo), Gallery(images, truth)
    reference = functools.cache(Points(geo, gallery, n, seed).reference)
    scheduled = {name: Points(with_schedule(geo, name), gallery, n, seed) for name in SCHEDULES}

    def answer(v: dict) -> Iterable[list[Panel]]:
        image, options = v["image"], _options(v)
        panels = [points.panel(image, options, title=name) for name, points in scheduled.items()]
        yield [_with_error(panel, reference(image)) for panel in panels]

    few = number("steps", "steps", [steps for steps in STEPS["options"] if steps <= 64])
    values = dict(steps=8, solver="midpoint")
    return gallery.player([few, _solver(geo)], values, view, answer=answer)


def explore_density(
    geo: Geolocator | None = None, images=None, truth=None, *, n: int = 1024, k: int = 3,
    seed: int = 0, **view,
) -> TrajectoryPlayer:  # fmt: skip
    """Pick a tile, or upload an image: its density over the Earth, localizability, k best places.

    At first it shows n samples, smoothed by a kernel of `KERNEL_KM`; "exact" computes the density
    itself, in some ten seconds. `geo` is any model. The rest is as in `explore_timesteps`.

    >>> explore_density(Geolocator(None, "uniform"), n=100).panels[0]["note"].split(" bits ")[0]
    'localizability -3.7'
    """
    geo = geo if geo is not None else Geolocator.from_pretrained("tiles")
    gallery, exact = Gallery(images, truth), {}

    def answer(v: dict) -> Iterable[list[Panel]]:
        image, cond = v["image"], gallery.cond(geo, v["image"])
        samples = sphere.from_latlon(geo.sample(cond=cond, n=n, seed=seed)[0])
        places, mass, _ = metrics.best_places(samples, k)
        note = f"{k} best: {', '.join(f'{100 * float(m):.0f} %' for m in mass)}"
        shown: dict[str, Any] = dict(best=sphere.to_latlon(places), **gallery.about(image))
        panel = Panel(torch.zeros(1, 0, 2), note=note, density=smoothed(samples), **shown)
        if v["density"] == SMOOTHED or image not in exact:
            yield [panel]
        bits = float(geo.localizability(cond=cond, n=min(n, 256), seed=seed))
        note = f"localizability {bits:.1f} bits (uniform: -3.7) · {note}"
        if v["density"] == EXACT:
            exact[image] = density = exact.get(image) or geo.density(cond=cond)
            panel, note = replace(panel, density=density), f"{note} · ∫p = {density.integral:.3f}"
        yield [replace(panel, note=note)]

    controls = [choice("density", "density", [SMOOTHED, EXACT])]
    return gallery.player(controls, dict(density=SMOOTHED), view, answer=answer)


def smoothed(samples: Tensor, degrees: float = 2.0) -> Raster:
    """The density of samples (n, 3), each smoothed to a vMF kernel of `KERNEL_KM`.

    >>> smoothed(sphere.uniform(50), degrees=10.0).log_density.shape
    torch.Size([18, 36])
    """
    lat, lon = raster_axes(degrees)
    grid = torch.stack(torch.meshgrid(lat, lon, indexing="ij"), -1)
    x = sphere.from_latlon(grid).reshape(1, -1, 3).float()
    weight = torch.full((1, len(samples)), -math.log(len(samples)))
    kappa = torch.full((1, len(samples)), (sphere.EARTH_RADIUS_KM / KERNEL_KM) ** 2)
    mixture = Mixture(weight, samples.float()[None], kappa)
    log_density = torch.cat([mixture.log_prob(part) for part in x.split(2048, 1)], 1)
    return Raster(lat, lon, log_density.reshape(len(lat), len(lon)))


def compare_methods(
    models: Mapping[str, Geolocator] | None = None, images=None, truth=None, *, n: int = 500,
    seed: int = 0, **view,
) -> TrajectoryPlayer:  # fmt: skip
    """Methods side by side and in step. Closed-form points stay put.

    `models` is {title: model}; or one model, which is shown beside the six shipped ones; or None
    for these six. The other arguments are as in `explore_timesteps`.

    >>> compare_methods({"nothing known": Geolocator(None, "uniform")}, n=10).panels[0]["note"]
    'closed form'
    """
    own = {models.method: models} if isinstance(models, Geolocator) else {}
    chosen = _six() | own if models is None or own else models
    gallery = Gallery(images, truth)
    points = {title: Points(geo, gallery, n, seed) for title, geo in chosen.items()}

    def answer(v: dict) -> Iterable[list[Panel]]:
        yield [
            one.panel(v["image"], _options(v, one.geo), title=title, color=color)
            for color, (title, one) in enumerate(points.items())
        ]

    values = dict(steps=16, guidance=0.0)
    return gallery.player([STEPS, GUIDANCE | OF_FLOWS], values, view, answer=answer)


def explore_sphere(x=(48.9, 2.4), y=(35.7, 139.7), **view) -> TrajectoryPlayer:
    """Two places x, y to drag, the geodesic between them, and the log vectors at both ends.

    The slider moves the point that exp leads to. `view`: see `TrajectoryPlayer`.

    >>> explore_sphere((0, 0), (0, 90)).values
    {'x': [0.0, 0.0], 'y': [0.0, 90.0]}
    """
    controls = [{"name": name, "label": name, "kind": "place"} for name in ("x", "y")]
    values = {"x": rounded(x)[0], "y": rounded(y)[0]}

    def answer(v: dict) -> Iterable[list[Panel]]:
        ends = sphere.from_latlon(torch.tensor([v["x"], v["y"]], dtype=torch.float64))
        t = torch.linspace(0, 1, STATES, dtype=torch.float64)[:, None]
        yield [Panel(sphere.to_latlon(sphere.geodesic(ends[:1], ends[1:], t)), moved_by_hand=True)]

    look: dict[str, Any] = {"projection": "globe", "center": (45.0, 60.0), "position": 0.5, **view}
    return TrajectoryPlayer(controls=controls, values=values, answer=answer, **look)


def explore_jumps(
    flow_map: Geolocator | None = None, images=None, truth=None, *, n: int = 500, seed: int = 0,
    **view,
) -> TrajectoryPlayer:  # fmt: skip
    """A flow map that the browser computes: all its controls work without a kernel.

    The page carries the network, in 16 bits a weight, and what it makes of each image; choices are
    the image, jumps, guidance, and how many points. Python draws the first answer, for figures.

    >>> player = explore_jumps(n=5)
    >>> player.values["steps"], len(player.jumps["truths"])
    (1, 6)

    Args:
        flow_map: None: the shipped one.
        images, truth: see `Gallery`.
        n, seed: number of points, and the seed of their starting places.
        view: see `TrajectoryPlayer`.

    Raises:
        ValueError: another method, or a network that the page's script does not have.
    """
    geo, gallery = flow_map or Geolocator.from_pretrained("tiles-flow-map"), Gallery(images, truth)
    about, weights = pack_map(geo, geo.embed(list(gallery.images.values())))
    truths = [gallery.truths.get(name) for name in gallery.images]
    about["truths"] = [rounded(place)[0] if place is not None else None for place in truths]
    first = Points(geo, gallery, n, seed).panel(next(iter(gallery.images)), geo.model.defaults)
    omegas = [round(0.1 * i, 1) for i in range(round(10 * MOST_GUIDANCE) + 1)]
    points = sorted({n, 100, 250, 500, 1000, 2000, 5000})
    controls = [
        number("steps", "jumps", JUMPS),
        number("guidance", "guidance ω", omegas),
        number("points", "points", points),
    ]
    values, shown = dict(steps=1, guidance=0.0, points=n), dict(trajectories=[first], **view)
    return gallery.player(controls, values, shown, jumps=(about, weights))


def atlas(
    models: Mapping[str, Geolocator] | None = None, images=None, truth=None, *, n: int = 240,
    steps: Sequence[int] = (1, 2, 4, 8, 16), guidances: Sequence[float] = (0.0, 1.0, 3.0),
    seed: int = 0, **view,
) -> TrajectoryPlayer:  # fmt: skip
    """Images × methods × steps × guidance, computed in advance: all controls work without a kernel.

    The six shipped models (`models` None) take a minute or two on a laptop. The solver is RK4, with
    `steps` and `guidances`. The other arguments are as in `compare_methods`.
    """
    gallery, models = Gallery(images, truth), models or _six()
    points = {title: Points(geo, gallery, n, seed) for title, geo in models.items()}
    panels: list[Panel] = []
    index: dict[tuple, int] = {}
    table: dict[str, list[int]] = {}
    for image in runtime.progress(gallery.images, desc="images"):
        for omega, count in itertools.product(guidances, steps):
            options, row = SolverOptions(count, "rk4", omega), []
            for color, (title, one) in enumerate(points.items()):
                key = (image, title, *((count, omega) if one.geo.model.guidable else ()))
                if key not in index:
                    index[key] = len(panels)
                    panels.append(one.panel(image, options, title=title, color=color))
                row.append(index[key])
                table[f"{image}|{title}|{count}|{omega:g}"] = row[-1:]
            table[f"{image}|{ALL_SIX}|{count}|{omega:g}"] = row
    controls = [choice("method", "method", [*models, ALL_SIX]), number("steps", "steps", steps)]
    controls.append(number("guidance", "", guidances) | OF_FLOWS)
    values = dict(method=ALL_SIX, steps=max(steps), guidance=guidances[0])
    return gallery.player(controls, values, view, trajectories=panels, table=table)
