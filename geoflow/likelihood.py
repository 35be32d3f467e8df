"""Log-densities by the change of variables, and density maps.

Along dx/dt = v(x, t) the density of the flow obeys d log p/dt = −div v. Solving back from a place x at t = 1 to the noise at t = 0,

    log p₁(x) = log p₀(x(0)) − ∫₀¹ div v(x(t), t) dt        (PLONK, proposition 1; Chen et al., 2018)

On S² the divergence is the Riemannian one, Σ ⟨eᵢ, ∂v/∂eᵢ⟩ over two orthonormal tangent vectors: two forward-mode derivatives,
exact. The trace of the ambient Jacobian is not a substitute (the official code uses it; its "densities" do not integrate to 1).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.func import jvp, vmap

from geoflow import runtime, sphere, vmf
from geoflow.samplers import integrate


def divergence(velocity, path, x: Tensor, t, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Velocity and its exact divergence on the path's manifold.

    Args:
        velocity: (x (B, N, 3), t, cond) → (B, N, 3).
        path: its `restrict` makes the field one on the manifold, its `frame` gives the directions.
        x: (B, N, 3).
        t: scalar, (B,) or (B, N).
        cond: (B, C) or None.

    Returns:
        velocity (B, N, 3), divergence (B, N).
    """
    frame = path.frame(x)
    if (
        getattr(velocity, "tangent", None) == path.tangent
    ):  # a field on the manifold that differentiates itself
        v, rates = velocity.jvp(x, t, cond, frame)
        return v, (frame * rates).sum((0, -1))
    field = path.restrict(velocity)
    x = x.contiguous()  # forward-mode derivatives cannot write into a tensor expanded over images

    def along(direction: Tensor) -> tuple[Tensor, Tensor]:
        v, dv = jvp(lambda y: field(y, t, cond), (x,), (direction,))  # ty: ignore[invalid-assignment]
        return v, (direction * dv).sum(-1)

    v, parts = vmap(along, out_dims=(None, 0))(frame)  # ty: ignore[invalid-argument-type]
    return v, parts.sum(0)


def log_prob(
    velocity, path, x: Tensor, times: Tensor, cond: Tensor | None = None, solver: str = "rk4"
) -> Tensor:
    """Log-density of the flow at x, solving back from data to noise.

    Args:
        velocity: (x (B, N, 3), t, cond) → (B, N, 3).
        path: see `geoflow.paths`.
        x: (B, N, 3) states at t = 1.
        times: (steps + 1,) from 0 to 1.
        cond: (B, C) or None.
        solver: see `geoflow.samplers.integrate`.

    Returns:
        (B, N) nats.
    """
    for state, total in integrate(
        lambda x, t: divergence(velocity, path, x, t, cond), path, x, times.flip(0), solver
    ):
        pass
    return path.noise_log_prob(state) + total


def sample_with_log_prob(
    velocity, path, noise: Tensor, times: Tensor, cond: Tensor | None = None, solver: str = "rk4"
) -> tuple[Tensor, Tensor]:
    """Samples and their log-densities from one forward solution: (B, N, 3), (B, N) nats. Arguments as in `log_prob`."""
    for state, total in integrate(
        lambda x, t: divergence(velocity, path, x, t, cond), path, noise, times, solver
    ):
        pass
    return state, path.noise_log_prob(noise) - total


RAY_POINTS = 8  # of the first look along a ray, and of each closer one
RAY_LOOKS = 0.25, 0.5, 1.0  # powers of the density by which the closer looks place their points
RAY_REACH, RAY_FOCUS = (
    (0.02, 4.5),
    0.02,
)  # radii looked at first: from and to, and how dense around 1, where data is


def radial_marginal(log_prob: Callable[[Tensor], Tensor], u: Tensor) -> Tensor:
    """Log-density of the direction of a random point in R³: log ∫ p(r u) r² dr.

    A well-trained flow ends in a shell a thousandth thick (deviations from 0.0005 to 0.014 were seen) whose radius differs from
    place to place, a random network in no shell at all; fixed nodes serve one or the other. So the ray is looked at four times: at
    radii dense around 1, then where the values so far promise mass, ever more strictly. Between these points log p is interpolated
    by cubics. Single values are right to 0.02 nats, integrals over the sphere to 1 %.

    Args:
        log_prob: (B, N', 3) → (B, N') nats with respect to volume.
        u: (B, N, 3) unit vectors.

    Returns:
        (B, N) nats with respect to area.
    """

    def along(q: Tensor) -> Tensor:
        rays = u[..., None, :] * _radius(q)[..., None].to(u)
        return log_prob(rays.flatten(1, 2)).unflatten(1, (-1, q.shape[-1])).double()

    low, high = (math.asinh((radius - 1) / RAY_FOCUS) for radius in RAY_REACH)
    q = torch.linspace(low, high, RAY_POINTS, dtype=torch.float64, device=u.device).expand(
        *u.shape[:-1], -1
    )
    values = along(q)
    shares = (torch.arange(RAY_POINTS, dtype=torch.float64, device=u.device) + 0.5) / RAY_POINTS
    for power in RAY_LOOKS:
        fine, mass, _ = _ray_mass(q, values, power)
        cumulative = mass.cumsum(-1)
        wanted = shares * cumulative[..., -1:]
        interval = torch.searchsorted(cumulative, wanted).clamp(max=mass.shape[-1] - 1)
        inside = 1 - (cumulative.gather(-1, interval) - wanted) / mass.gather(-1, interval)
        closer = torch.lerp(
            fine.gather(-1, interval), fine.gather(-1, interval + 1), inside.clamp(0, 1)
        )
        q, order = torch.cat([q, closer], -1).sort(-1)
        values = torch.cat([values, along(closer)], -1).gather(-1, order)
    _, mass, highest = _ray_mass(q, values, 1.0)
    return (mass.sum(-1).log() + highest).to(u)


def _radius(q: Tensor) -> Tensor:
    return 1 + RAY_FOCUS * q.sinh()


def _ray_mass(
    q: Tensor, values: Tensor, power: float, parts: int = 16
) -> tuple[Tensor, Tensor, Tensor]:
    """A finer grid (…, m + 1), the integral of (exp(values) r² dr/dq)^power over its m intervals, divided by exp(top), and that top.

    Cubic Hermite interpolation whose slopes are a parabola's, no steeper than three times either side's: exact around a Gaussian's
    peak, without swings beside a cliff (Hyman, 1983).
    """
    h, rise = q.diff(dim=-1).clamp(min=1e-12), values.diff(dim=-1)
    slope = rise / h
    before, after = slope[..., :-1], slope[..., 1:]
    inner = (before * h[..., 1:] + after * h[..., :-1]) / (h[..., 1:] + h[..., :-1])
    first, last = 2 * slope[..., :1] - inner[..., :1], 2 * slope[..., -1:] - inner[..., -1:]
    steepest = 3 * slope.abs()
    steepest = torch.cat(
        [
            steepest[..., :1],
            torch.minimum(steepest[..., :-1], steepest[..., 1:]),
            steepest[..., -1:],
        ],
        -1,
    )
    slopes = torch.cat([first, inner, last], -1)
    slopes = torch.maximum(torch.minimum(slopes, steepest), -steepest)
    s = torch.arange(parts, dtype=q.dtype, device=q.device) / parts
    start, end, h = slopes[..., :-1, None], slopes[..., 1:, None], h[..., None]
    curve = (
        values[..., :-1, None]
        + rise[..., None] * s**2 * (3 - 2 * s)
        + h * s * (1 - s) * ((1 - s) * start - s * end)
    )
    fine = torch.cat([(q[..., :-1, None] + h * s).flatten(-2), q[..., -1:]], -1)
    curve = (
        torch.cat([curve.flatten(-2), values[..., -1:]], -1)
        + 2 * _radius(fine).log()
        + (RAY_FOCUS * fine.cosh()).log()
    )
    top = power * curve.amax(-1, keepdim=True)
    height = (power * curve - top).exp()
    return fine, (height[..., 1:] + height[..., :-1]) / 2 * fine.diff(dim=-1), top[..., 0]


@dataclass(frozen=True)
class DensityMap:
    """A density on the sphere, exact at the cells of an equal-area grid that is finer where the mass is.

    Attributes:
        x: (M, 3) centres of the cells.
        area: (M,) their areas on the unit sphere; they add up to 4π.
        cell_log_density: (M,) log-density at the centres, nats.
        lat: (H,) latitudes of the raster's pixel centres, degrees, north to south.
        lon: (W,) longitudes, degrees, −180 to 180.
        log_density: (H, W) log-density interpolated to the raster, nats.
    """

    x: Tensor
    area: Tensor
    cell_log_density: Tensor
    lat: Tensor
    lon: Tensor
    log_density: Tensor

    @property
    def cell_mass(self) -> Tensor:
        """Probability of each cell, before normalisation: (M,)."""
        return self.cell_log_density.exp() * self.area

    @property
    def integral(self) -> float:
        """∫ p over the sphere: 1 up to the error of the grid and the solver."""
        return float(self.cell_mass.sum())

    @property
    def entropy(self) -> float:
        """−∫ p log p, nats; the uniform density has log 4π = 2.531."""
        mass = self.cell_mass / self.integral
        return float(-(mass * (self.cell_log_density - math.log(self.integral))).sum())

    @property
    def mode(self) -> Tensor:
        """The densest place, to the size of a cell: (2,) degrees."""
        return sphere.to_latlon(self.x[self.cell_log_density.argmax()])

    def mass(self, region: Callable[[Tensor], Tensor]) -> float:
        """Probability of a region, to the size of a cell.

        Args:
            region: latlon (M, 2) in degrees → (M,) bool, such as `lambda latlon: latlon[:, 0] > 66.5`.
        """
        inside = region(sphere.to_latlon(self.x))
        return float(self.cell_mass[inside].sum()) / self.integral

    def region_threshold(self, probability: float) -> float:
        """Log-density above which the smallest region with that probability lies (the highest-density region), nats.

        Raises:
            ValueError: probability not in (0, 1).
        """
        if not 0 < probability < 1:
            raise ValueError(f"probability {probability}; expected a number between 0 and 1")
        order = self.cell_log_density.argsort(descending=True)
        inside = (self.cell_mass[order].cumsum(0) / self.integral < probability).sum()
        return float(self.cell_log_density[order][inside.clamp(max=len(order) - 1)])

    def region_area_km2(self, probability: float) -> float:
        """Area of the highest-density region, km²."""
        inside = self.cell_log_density >= self.region_threshold(probability)
        return float(self.area[inside].sum()) * sphere.EARTH_RADIUS_KM**2

    def to_geojson(self, probabilities=(0.5, 0.9, 0.95)) -> dict:
        """Highest-density regions as a GeoJSON FeatureCollection of polygons (longitude, latitude), largest first.

        Polygons follow the raster's pixels: a region smaller than a pixel becomes that pixel, `area_km2` is its true area.
        """
        from rasterio import features

        transform = self._transform()
        lat, lon = sphere.to_latlon(self.x).unbind(-1)
        rows = ((90 - lat) / 180 * len(self.lat)).long().clamp(max=len(self.lat) - 1)
        columns = ((lon + 180) / 360 * len(self.lon)).long().clamp(max=len(self.lon) - 1)
        regions = []
        for probability in sorted(probabilities, reverse=True):
            threshold = self.region_threshold(probability)
            inside = self.log_density >= threshold
            cells = self.cell_log_density >= threshold
            inside[rows[cells], columns[cells]] = True
            inside = inside.numpy()
            shapes = features.shapes(inside.astype(np.uint8), mask=inside, transform=transform)
            coordinates = [shape["coordinates"] for shape, _ in shapes]
            properties = {"probability": probability, "area_km2": self.region_area_km2(probability)}
            geometry = {"type": "MultiPolygon", "coordinates": coordinates}
            regions.append({"type": "Feature", "properties": properties, "geometry": geometry})
        return {"type": "FeatureCollection", "features": regions}

    def to_geotiff(self, path) -> Path:
        """Write probability per km² as a one-band float32 GeoTIFF (EPSG:4326) and return its path."""
        import rasterio

        path = Path(path)
        per_km2 = (self.log_density.exp() / sphere.EARTH_RADIUS_KM**2).float().numpy()
        partial = path.with_name(path.name + ".partial")
        profile = dict(
            driver="GTiff", dtype="float32", count=1, height=len(self.lat), width=len(self.lon)
        )
        with rasterio.open(
            partial,
            "w",
            crs="EPSG:4326",
            transform=self._transform(),
            compress="deflate",
            **profile,
        ) as file:
            file.write(per_km2, 1)
            file.update_tags(unit="probability per square kilometre")
        partial.replace(path)
        return path

    def _transform(self):
        from rasterio.transform import from_bounds

        return from_bounds(-180, -90, 180, 90, len(self.lon), len(self.lat))


def density_map(
    log_prob: Callable[[Tensor], Tensor],
    samples: Tensor,
    resolution: float = 1.0,
    cell_mass: float = 1 / 120,
    base_level: int = 3,
    max_level: int = 17,
    max_cells: int = 20_000,
    desc: str = "",
) -> DensityMap:
    """A density on a HEALPix grid, refined where the mass is.

    Starting from cells of 7°, a cell is split in four, and so are the cells around it, down to 50 m, if it holds more than
    `cell_mass` of the probability by its centre's density, or a quarter of that by its share of the samples (an eighth in cells of
    4°, a sixteenth in cells of 7°, where most peaks lie between the centres).

    It is the samples that mostly decide. A rule by the centres' own densities keeps the cells whose centres happen to miss a
    filament, and then the integral falls short; the samples know nothing of centres, so cells are kept with errors of either sign.
    The cells around are split because half a peak may lie there.

    On the flanks of many narrow peaks, and beside many ridges that miss the centres, even light cells fall short together: `integral`
    says whether it is the map or the density.

    Args:
        log_prob: (M, 3) → (M,) nats.
        samples: (n, 3) draws from the same density, some thousands.
        resolution: pixel size of the raster, degrees.
        cell_mass: largest probability of a cell that is not split.
        base_level, max_level: coarsest and finest HEALPix level.
        max_cells: most evaluations of `log_prob`; when they run out, only the heaviest cells are split. The integral shows
            whether they sufficed.
        desc: of a progress bar, which counts towards `max_cells`; empty: none.

    Raises:
        ValueError: resolution not in (0, 30].
    """
    if not 0 < resolution <= 30:
        raise ValueError(f"resolution of {resolution} degrees; expected a number in (0, 30]")
    done: list[tuple[Tensor, Tensor, Tensor]] = []
    cells = torch.arange(12 * 4**base_level)
    with runtime.progress(total=max_cells, desc=desc, unit="cell", disable=not desc) as bar:
        for level in range(base_level, max_level + 1):
            x = sphere.healpix_centers(cells, level)
            values = []
            for part in x.float().split(4096):  # an accelerator wants many at once
                values.append(log_prob(part).double())
                bar.update(len(part))
            density = torch.cat(values)
            area = torch.full_like(density, math.pi / (3 * 4**level))
            max_cells -= len(cells)
            home = sphere.healpix_cells(samples, level).sort().values
            sampled = (
                torch.searchsorted(home, cells, right=True) - torch.searchsorted(home, cells)
            ) / len(samples)
            weight = 4 * max(1, 4 >> (level - base_level))
            mass = _largest_around(
                x,
                torch.maximum(density.exp() * area, weight * sampled),
                radius=1.6 * math.sqrt(area[0]),
            )
            heaviest = mass.argsort(descending=True)[: max_cells // 4 if level < max_level else 0]
            split = torch.zeros_like(mass, dtype=torch.bool)
            split[heaviest] = mass[heaviest] > cell_mass
            done.append((x[~split], area[~split], density[~split]))
            cells = (4 * cells[split][:, None] + torch.arange(4)).flatten()
            if not len(cells):
                break
    x, area, density = (torch.cat(parts) for parts in zip(*done, strict=True))
    lat, lon = _raster_axes(resolution)
    return DensityMap(x, area, density, lat, lon, _interpolate(x, density, lat, lon))


NEAREST = 8  # samples within the width of a kernel
UNIFORM_SHARE = 0.02  # of the points, for what the samples have missed


def integral(
    log_prob: Callable[[Tensor], Tensor],
    samples: Tensor,
    n: int,
    generator: torch.Generator,
    desc: str = "",
) -> tuple[float, float]:
    """∫ p over the sphere and its standard error, without a grid: the mean of p / q at points drawn from a density q that is like p.

    Unbiased however narrow the peaks of p are, where the centres of a grid's cells fall short on the flanks of many. q is a kernel
    density of samples of p, each kernel as wide as the distance to the eighth nearest sample, and a little of the uniform density.

    Args:
        log_prob: (M, 3) → (M,) nats.
        samples: (m, 3) draws from the same density, many for each peak.
        n: evaluations of `log_prob`.
        generator: of the points.
        desc: of a progress bar; empty: none.

    Returns:
        integral, standard error.
    """
    from scipy.spatial import KDTree

    centres = samples.double()
    distance, _ = KDTree(centres.numpy()).query(centres.numpy(), k=NEAREST + 1)
    width = torch.from_numpy(distance[:, -1]).clamp(min=1e-6)
    weight = torch.full(
        (len(centres) + 1,), (1 - UNIFORM_SHARE) / len(centres), dtype=torch.float64
    )
    weight[-1] = UNIFORM_SHARE
    kernels = vmf.Mixture(
        weight.log()[None],
        torch.cat([centres, centres[:1]])[None],
        torch.cat([width**-2, width.new_zeros(1)])[None],
    )
    ratios = []
    with runtime.progress(total=n, desc=desc, unit="point", disable=not desc) as bar:
        for part in torch.rand(n, 3, generator=generator, dtype=torch.float64).split(1024):
            x = torch.cat(
                [kernels.sample(few[None])[0] for few in part.split(64)]
            ).float()  # few meet all kernels at a time
            log_q = torch.cat([kernels.log_prob(few[None].double())[0] for few in x.split(64)])
            ratios.append((log_prob(x).double() - log_q).exp())
            bar.update(len(part))
    ratio = torch.cat(ratios)
    return float(ratio.mean()), float(ratio.std() / math.sqrt(n))


def _largest_around(x: Tensor, values: Tensor, radius: float) -> Tensor:
    """Largest value among each point and its eight nearest within a chord: (M, 3), (M,) → (M,)."""
    from scipy.spatial import KDTree

    _, near = KDTree(x.numpy()).query(x.numpy(), k=9, distance_upper_bound=radius)
    padded = torch.cat([values, values.new_zeros(1)])  # the tree numbers a missing neighbour M
    return padded[torch.from_numpy(near)].amax(1)


def _raster_axes(resolution: float) -> tuple[Tensor, Tensor]:
    rows = max(round(180 / resolution), 1)
    lat = 90 - (torch.arange(rows) + 0.5) * 180 / rows
    lon = -180 + (torch.arange(2 * rows) + 0.5) * 180 / rows
    return lat, lon


def _interpolate(x: Tensor, values: Tensor, lat: Tensor, lon: Tensor, neighbors: int = 8) -> Tensor:
    """Values at scattered points (M, 3) → raster (H, W), smooth across the antimeridian and the poles.

    Modified Shepard interpolation: around each point a plane is fitted to its neighbours; a pixel takes the mean of the nearest
    planes, weighted by inverse squared distance and kept within the neighbours' values.
    """
    from scipy.spatial import KDTree

    tree = KDTree(x.numpy())
    _, near = tree.query(x.numpy(), k=neighbors + 1)
    offset = x[near[:, 1:]] - x[:, None]  # (M, k, 3)
    rise = values[near[:, 1:]] - values[:, None]
    slope = torch.linalg.lstsq(offset, rise[..., None], driver="gelsd").solution[..., 0]  # (M, 3)

    grid = sphere.from_latlon(
        torch.stack(torch.meshgrid(lat.double(), lon.double(), indexing="ij"), -1)
    )
    distance, near = tree.query(grid.reshape(-1, 3).numpy(), k=4)
    weight = 1 / (torch.from_numpy(distance) ** 2 + 1e-12)
    offset = grid.reshape(-1, 1, 3) - x[near]
    planes = values[near] + (offset * slope[near]).sum(-1)
    blend = (weight * planes).sum(-1) / weight.sum(-1)
    low, high = torch.aminmax(values[near], dim=-1)
    return torch.minimum(torch.maximum(blend, low), high).reshape(grid.shape[:-1])
