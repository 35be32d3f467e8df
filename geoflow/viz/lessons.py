"""Figures of the first lessons: a globe to draw on, pieces of the plane, and three diagrams.

Functions draw into matplotlib axes that the caller has made, so that a notebook decides which
panels stand side by side. Points are unit vectors (..., 3) on a `Globe`, (..., 2) in the plane.
"""

import functools
import math
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from geoflow import sphere
from geoflow.viz import basemap
from geoflow.viz.charts import BLUE as BLUE
from geoflow.viz.charts import GREEN as GREEN
from geoflow.viz.charts import ORANGE as ORANGE
from geoflow.viz.charts import RED as RED

GREY = "#6b7782"
HALO = [withStroke(linewidth=3, foreground="white")]
EDGE = 1e-9  # how far behind the horizon, in Earth radii, rounding may put a visible point


def use_style() -> None:
    """Set the fonts and the frames of a notebook's figures, for all figures that follow.

    >>> with matplotlib.rc_context():
    ...     use_style()
    ...     matplotlib.rcParams["axes.spines.top"]
    False
    """
    style: dict[Any, Any] = {
        "figure.dpi": 100,
        "font.size": 10,
        "axes.titlesize": 10,
        "legend.frameon": False,
    }
    matplotlib.rcParams.update(style | {"axes.spines.top": False, "axes.spines.right": False})


# The sphere


class Globe:
    """The Earth as seen from far above a place: coastlines and a line every 30 degrees.

    A point x appears at (⟨right, x⟩, ⟨up, x⟩) and is visible when ⟨eye, x⟩ ≥ 0 (an orthographic
    projection). The unit of both axes is the radius of the Earth.

    >>> from matplotlib.figure import Figure
    >>> globe = Globe(Figure().subplots(), 0.0, 90.0)
    >>> globe.seen(torch.eye(3, dtype=torch.float64)).round().tolist()[1:]  # 0° N 90° E; the pole
    [[0.0, 0.0], [0.0, 1.0]]

    Args:
        ax: axes without a projection; their frame is removed.
        lat, lon: degrees of the place in the middle of the globe, which is not a pole.
        title: text above the globe.

    Raises:
        ValueError: a latitude beyond ±90 degrees, or a pole, where no direction is "up".
    """

    def __init__(self, ax: Axes, lat: float, lon: float, title: str = ""):
        if abs(lat) == 90:
            raise ValueError(f"a globe seen from above latitude {lat}; expected a place off a pole")
        self.ax, self.axes = ax, camera(lat, lon)
        ax.add_patch(Circle((0, 0), 1, fc=basemap.SEA, ec=basemap.COAST, lw=0.6, zorder=0))
        self.line(graticule(), color="white", lw=0.9, zorder=1)
        self.line(coastlines(), color="#98a4ae", lw=0.7, zorder=1)
        ax.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal", title=title)
        ax.axis("off")

    def seen(self, x: Tensor) -> Tensor:
        """Where points appear: (..., 3) → (..., 2), NaN for points behind the globe."""
        right_up_eye = x.to(self.axes) @ self.axes.T
        return torch.where(right_up_eye[..., 2:] >= -EDGE, right_up_eye[..., :2], torch.nan)

    def line(self, x: Tensor, *how, **style) -> Line2D:
        """A line through points (n, 3), drawn where it is visible; a format draws markers."""
        return self.ax.plot(*self.seen(x).T.numpy(), *how, **style)[0]

    def points(self, x: Tensor, color=BLUE, size: float = 5, **style) -> Line2D:
        """Dots at the visible ones of the points (..., 3)."""
        dots = {"ms": size, "mew": 0, "zorder": 5} | style
        return self.line(x.reshape(-1, 3), ".", color=color, **dots)

    def fill(self, x: Tensor, **style) -> bool:
        """Fill an outline (n, 3) if all of it is visible, and say whether it was."""
        corners = self.seen(x)
        how: dict[str, Any] = {"zorder": 3, **style}
        visible = bool(corners.isfinite().all())
        if visible:
            self.ax.fill(*corners.T.numpy(), **how)
        return visible

    def arrows(self, x: Tensor, v: Tensor, color=RED, width: float = 0.012, scale: float = 1.0):
        """Tangent vectors v (n, 3) at visible points x (n, 3), as they appear, times 1/scale."""
        start, shown = self.seen(x), v.to(self.axes) @ self.axes.T[:, :2]
        how: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": scale, "zorder": 6}
        self.ax.quiver(*start.T.numpy(), *shown.T.numpy(), color=color, width=width, **how)

    def label(self, x: Tensor, text: str, shift=(0.05, 0.05), **style) -> None:
        """A text beside a visible point (3,), moved by `shift` Earth radii right and up."""
        right, up = (self.seen(x).numpy() + np.array(shift)).tolist()
        how: dict[str, Any] = {"path_effects": HALO, "zorder": 8, "fontsize": 9, **style}
        self.ax.text(right, up, text, **how)


def camera(lat: float, lon: float) -> Tensor:
    """Right, up and towards-the-eye axes of an observer far above a place: (3, 3) float64.

    >>> camera(0.0, 0.0).tolist()
    [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    eye = sphere.from_latlon(torch.tensor([lat, lon], dtype=torch.float64))
    up = sphere.unit(sphere.to_tangent(eye, torch.tensor([0.0, 0.0, 1.0]).to(eye)))
    return torch.stack([torch.linalg.cross(up, eye), up, eye])


@functools.cache
def coastlines() -> Tensor:
    """Unit vectors (n, 3) along the coasts, with a row of NaN between two pieces.

    >>> coastlines().nanmean(0).shape
    torch.Size([3])
    """
    return _joined(*basemap.coast())


@functools.cache
def graticule() -> Tensor:
    """Unit vectors (n, 3) along every 30th parallel and meridian, with rows of NaN between them."""
    fine, parallels, meridians = np.arange(-180, 181, 2.0), range(-60, 61, 30), range(-180, 180, 30)
    lines = [np.stack([np.full_like(fine, lat), fine], 1) for lat in parallels]
    lines += [np.stack([fine / 2, np.full_like(fine, lon)], 1) for lon in meridians]
    return _joined(*(np.concatenate([line[part] for line in lines]) for part in (_START, _END)))


_START, _END = slice(None, -1), slice(1, None)


def _joined(start: np.ndarray, end: np.ndarray) -> Tensor:
    """Short lines between places (n, 2) in degrees → one sequence of points with NaN between."""
    ends = sphere.from_latlon(torch.from_numpy(np.stack([start, end], 1)))
    gap = torch.full_like(ends[:, :1], torch.nan)
    return torch.cat([ends, gap], 1).reshape(-1, 3)


def draw_flat_land(ax: Axes, lat=(-90, 90), lon=(-180, 180)) -> None:
    """Land on a map whose axes are longitude and latitude in degrees, between the given limits.

    >>> from matplotlib.figure import Figure
    >>> draw_flat_land(Figure().subplots(), lat=(35, 72), lon=(-12, 40))
    """
    for polygon in basemap.land().geoms:
        ax.fill(*np.array(polygon.exterior.coords).T, color="#dfe3e6", zorder=0)
    ax.set(xlim=lon, ylim=lat, aspect="equal", xlabel="longitude (°)", ylabel="latitude (°)")


def draw_exp_in_its_plane(ax: Axes, angle: float) -> None:
    """The circle that a walk from x stays on, in the plane of x and of the direction v/|v|.

    After the angle |v| the walker stands at cos|v| x + sin|v| v/|v|.

    >>> from matplotlib.figure import Figure
    >>> draw_exp_in_its_plane(Figure().subplots(), angle=1.0)

    Args:
        angle: |v| in radians, below π/2 so that the labels stay apart.
    """
    turn = np.linspace(0, 2 * math.pi, 200)
    ax.plot(np.cos(turn), np.sin(turn), color=GREY, lw=1)
    walked = np.linspace(0, angle, 50)
    ax.plot(np.cos(walked), np.sin(walked), color=BLUE, lw=3)
    c, s = math.cos(angle), math.sin(angle)
    arrow = {"arrowstyle": "-|>", "lw": 1.8, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", (1, 0), (0, 0), arrowprops=arrow | {"color": "black"})
    ax.annotate("", (1, angle), (1, 0), arrowprops=arrow | {"color": RED})
    ax.plot([0, c, c], [0, s, 0], color=GREY, lw=1, ls="--")
    ax.plot(c, s, "o", color=BLUE)
    texts = (
        ((0.72, -0.13), "x", "black"),
        ((1.05, 0.75 * angle), "v, of length |v|", RED),
        ((c - 0.1, s + 0.1), "exp(v)", BLUE),
        ((c / 2, -0.13), "cos|v|", GREY),
        ((c + 0.04, 0.45 * s), "sin|v|", GREY),
    )
    for at, text, color in texts:
        ax.text(*at, text, color=color, fontsize=9, path_effects=HALO)
    half = angle / 2
    ax.text(0.16 * math.cos(half), 0.16 * math.sin(half), "|v|", color=BLUE, fontsize=9)
    ax.set(xlim=(-1.1, 1.9), ylim=(-1.1, 1.4), aspect="equal")
    ax.set(xlabel="along x (Earth radii)", ylabel="along v/|v| (Earth radii)")


def draw_exp_and_log(globe: Globe, x: Tensor, y: Tensor, names=("x", "y")) -> None:
    """The tangent plane at x, the arrow v = log_x(y) in it, and the geodesic from x to y.

    >>> from matplotlib.figure import Figure
    >>> a, b = sphere.from_latlon(torch.tensor([[0.0, 0.0], [40.0, 40.0]]))
    >>> draw_exp_and_log(Globe(Figure().subplots(), 20.0, 20.0), a, b)

    Args:
        globe: where x and y are visible.
        x, y: (3,) unit vectors, not antipodal.
    """
    x, y = x.double(), y.double()
    v = sphere.log(x, y)
    ways = torch.linspace(0, 1, 100, dtype=torch.float64)[:, None]
    side = sphere.unit(v)
    across = torch.linalg.cross(x, side)
    long = v.norm() + 0.25
    plane = [
        x + a * side + b * across
        for a, b in ((-0.35, -0.5), (long, -0.5), (long, 0.5), (-0.35, 0.5))
    ]
    corners = torch.stack(plane) @ globe.axes.T
    globe.ax.fill(*corners[:, :2].T.numpy(), fc=ORANGE, ec="#b57a00", alpha=0.25, zorder=2)
    globe.line(sphere.exp(x, ways * v), color=BLUE, lw=3, zorder=4)
    globe.arrows(x[None], v[None], color=RED, width=0.014)
    globe.points(torch.stack([x, y]), color="black", size=13)
    tip = (x + v) @ globe.axes.T
    right, up = (tip[:2] + 0.04).tolist()
    globe.ax.text(right, up, f"log({names[1]})", color=RED, path_effects=HALO, zorder=9)
    globe.label(x, names[0], (-0.06, -0.14))
    globe.label(y, f"{names[1]} = exp(log({names[1]}))", (0.04, -0.12))
    globe.label(sphere.geodesic(x, y, 0.5), "geodesic", (0.02, -0.14), color=BLUE)
    shown = torch.cat([corners[:, :2], tip[None, :2]])
    low, high = shown.amin(0).clamp(max=-1).tolist(), shown.amax(0).clamp(min=1).tolist()
    globe.ax.set(xlim=(low[0] - 0.1, high[0] + 0.1), ylim=(low[1] - 0.1, high[1] + 0.1))


# The plane


def frame(ax: Axes, title: str = "", limit: float = 2.6, labels: bool = True) -> None:
    """Square axes over [−limit, limit]² with the coordinates x₁ and x₂, which have no unit.

    >>> from matplotlib.figure import Figure
    >>> frame(Figure().subplots(), "noise")

    Args:
        labels: False leaves out the names and numbers, for a panel beside a labelled one.
    """
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", title=title)
    ax.set(xticks=(-2, 0, 2), yticks=(-2, 0, 2))
    if labels:
        ax.set(xlabel="x₁", ylabel="x₂")
    else:
        ax.tick_params(labelbottom=False, labelleft=False)
    for side in ax.spines.values():
        side.set(visible=True, color="#c9d1d8")


def frames(figure, titles, limit: float = 2.6) -> list[Axes]:
    """One row of square panels with these titles; the first one carries the labels of the axes.

    >>> from matplotlib.figure import Figure
    >>> [ax.get_ylabel() for ax in frames(Figure(), ["t = 0", "t = 1"])]
    ['x₂', '']
    """
    axes = figure.subplots(1, len(titles), squeeze=False)[0]
    for i, (ax, title) in enumerate(zip(axes, titles, strict=True)):
        frame(ax, title, limit, labels=i == 0)
    return list(axes)


def scatter(ax: Axes, x: Tensor, color=BLUE, size: float = 2.5, **style) -> Line2D:
    """Dots at points (n, 2).

    >>> from matplotlib.figure import Figure
    >>> dots = scatter(Figure().subplots(), torch.randn(100, 2))
    """
    return ax.plot(*x.T.numpy(), ".", ms=size, mew=0, color=color, **style)[0]


def arrows(
    ax: Axes, x: Tensor, v: Tensor, color=RED, width: float = 0.005, scale: float = 1.0, **style
):
    """Vectors v (n, 2) at points x (n, 2), 1/scale as long as in the units of the axes.

    >>> from matplotlib.figure import Figure
    >>> drawn = arrows(Figure().subplots(), torch.zeros(1, 2), torch.ones(1, 2))
    """
    how: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": scale, "width": width}
    return ax.quiver(*x.T.numpy(), *v.T.numpy(), color=color, **how | style)


def image(ax: Axes, values: Tensor, extent: float, **style) -> AxesImage:
    """Values (n, n) on a square grid over [−extent, extent]², the first row at the bottom.

    >>> from matplotlib.figure import Figure
    >>> drawn = image(Figure().subplots(), torch.eye(8), extent=2.0)
    """
    how: dict[str, Any] = {"cmap": "BuPu", "origin": "lower", **style}
    return ax.imshow(values.numpy(), extent=(-extent, extent, -extent, extent), **how)


def crossing(a: Tensor, b: Tensor) -> tuple[float, float] | None:
    """Where two drawn paths (n, 2) and (m, 2) cross first: their positions, counted in points.

    A position 3.5 is the middle between the points 3 and 4. None means that they do not cross.

    >>> crossing(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    (0.5, 0.5)
    """
    p, r = a[:-1, None].double(), a.double().diff(dim=0)[:, None]
    q, s = b[None, :-1].double(), b.double().diff(dim=0)[None]
    area = r[..., 0] * s[..., 1] - r[..., 1] * s[..., 0]
    gap = q - p
    along_a = (gap[..., 0] * s[..., 1] - gap[..., 1] * s[..., 0]) / area
    along_b = (gap[..., 0] * r[..., 1] - gap[..., 1] * r[..., 0]) / area
    cross = (along_a >= 0) & (along_a < 1) & (along_b >= 0) & (along_b < 1)
    if not bool(cross.any()):
        return None
    i, j = cross.nonzero()[0].tolist()
    return i + along_a[i, j].item(), j + along_b[i, j].item()


def crossings(paths: Tensor) -> dict[tuple[int, int], tuple[float, float]]:
    """Pairs of n drawn paths (points, n, 2) that cross, each with `crossing`'s two positions.

    >>> start, end = [[0.0, 0.0], [0.0, 1.0], [5.0, 0.0]], [[1.0, 1.0], [1.0, 0.0], [5.0, 1.0]]
    >>> crossings(torch.tensor([start, end]))
    {(0, 1): (0.5, 0.5)}
    """
    n = paths.shape[1]
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    low, high = paths.amin(0), paths.amax(0)
    near = [
        (i, j) for i, j in pairs if bool((low[i] <= high[j]).all() and (low[j] <= high[i]).all())
    ]
    found = {pair: crossing(paths[:, pair[0]], paths[:, pair[1]]) for pair in near}
    return {pair: where for pair, where in found.items() if where is not None}


def draw_crossing_in_time(ax, paths: Tensor, where: tuple[float, float]) -> tuple[float, float]:
    """Two paths (points, 2, 2) that cross in the plane, in axes (x₁, x₂, t) where they do not.

    Their shadows on the floor t = 0 cross. Dotted lines lead from the crossing up to the two
    travellers, who pass there at different times.

    >>> from matplotlib.figure import Figure
    >>> ax = Figure().add_subplot(projection="3d")
    >>> paths = torch.tensor([[[0.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [1.0, 0.0]]])
    >>> draw_crossing_in_time(ax, paths, (0.5, 0.5))
    (0.5, 0.5)

    Args:
        ax: three-dimensional axes (`projection="3d"`).
        paths: states at equal steps of time from 0 to 1.
        where: `crossing` of the two paths.

    Returns:
        The two times.
    """
    t = np.linspace(0, 1, len(paths))
    times = where[0] / (len(paths) - 1), where[1] / (len(paths) - 1)
    for path, time, color in zip(paths.unbind(1), times, (BLUE, RED), strict=True):
        x = path.numpy()
        at = [np.interp(time, t, x[:, k]) for k in (0, 1)]
        ax.plot(x[:, 0], x[:, 1], t, color=color, lw=2)
        ax.plot(x[:, 0], x[:, 1], 0 * t, color=color, lw=1, alpha=0.4)
        ax.plot([at[0]] * 2, [at[1]] * 2, [0, time], color=GREY, lw=1, ls=":")
        ax.plot(*([k] for k in at), [time], "o", color=color, ms=5)
        ax.text(*at, time, f"  t = {time:.2f}", color=color, fontsize=9)
    ax.plot(*([k] for k in at), [0], "x", color="black", ms=6)
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.set_major_locator(MaxNLocator(4))
    ax.set(xlabel="x₁", ylabel="x₂", zlabel="t", zlim=(0, 1))
    return times
