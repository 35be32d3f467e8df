"""Densities as maps: an adaptive equal-area grid, its integral and regions, a raster, GIS files."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geoflow import runtime, sphere, vmf
from geoflow.gis import files, healpix, outlines, rasters

LogDensity = Callable[[Tensor], Tensor]
"""Log-densities of places: (M, 3) unit vectors → (M,) nats."""


@dataclass(frozen=True)
class Raster:
    """A density on a grid of latitudes and longitudes, as maps draw it."""

    lat: Tensor  # (H,) latitudes of the pixel centres, degrees, north to south
    lon: Tensor  # (W,) longitudes, degrees, −180 to 180
    log_density: Tensor  # (H, W) log of the mean density of each pixel, nats per steradian


def raster_axes(resolution: float) -> tuple[Tensor, Tensor]:
    """Latitudes (H,) and longitudes (2H,) of the pixel centres of a world raster, degrees.

    Raises:
        ValueError: resolution not in [0.05, 30] degrees.
    """
    resolution = runtime.number(f"resolution of {resolution!r} degrees", resolution)
    if not 0.05 <= resolution <= 30:
        raise ValueError(f"resolution of {resolution} degrees; expected a number in [0.05, 30]")
    rows = round(180 / resolution)
    lat = 90 - (torch.arange(rows) + 0.5) * 180 / rows
    lon = -180 + (torch.arange(2 * rows) + 0.5) * 180 / rows
    return lat, lon


@dataclass(frozen=True)
class DensityMap(Raster):
    """A density on the sphere, exact at the cells of an equal-area grid, finer where the mass is.

    The raster holds the mass of the cells: its pixels add up to the integral at any resolution.
    """

    x: Tensor  # (M, 3) centres of the cells
    area: Tensor  # (M,) their areas on the unit sphere, which add up to 4π
    cell_log_density: Tensor  # (M,) log-density at the centres, nats
    cell_mass: Tensor  # (M,) probability of each cell, before normalisation
    cells: Tensor  # (M,) their numbers, see `geoflow.gis.healpix`
    levels: Tensor  # (M,) and numbers of subdivisions

    @property
    def integral(self) -> float:
        """∫ p over the sphere: 1 up to the error of the grid and the solver."""
        return float(self.cell_mass.sum())

    @property
    def entropy(self) -> float:
        """−∫ p log p, nats; the uniform density has log 4π = 2.531."""
        mass = self.cell_mass / self.integral
        return float(-(mass * (self.cell_log_density.clamp(-700) - math.log(self.integral))).sum())

    @property
    def mode(self) -> Tensor:
        """The place of highest density, to the size of a cell: (2,) degrees."""
        return sphere.to_latlon(self.x[self.cell_log_density.argmax()])

    def mass(self, region: Callable[[Tensor], Tensor]) -> float:
        """Probability of a region, `lambda latlon: latlon[:, 0] > 66.5`, to the size of a cell.

        Raises:
            ValueError: the region does not say true or false of each place.
        """
        inside = np.asarray(region(sphere.to_latlon(self.x)))
        if (inside.dtype, inside.shape) != (bool, self.area.shape):
            got = f"region gives {inside.dtype} {inside.shape}"
            raise ValueError(f"{got}, not bool ({len(self.x)},): one for each place")
        return float(self.cell_mass[inside].sum()) / self.integral

    def region_threshold(self, probability: float) -> float:
        """Log-density that bounds a region of highest density whose mass is nearest to this.

        Raises:
            ValueError: probability not in (0, 1).
        """
        if not 0 < runtime.number(f"probability {probability!r}", probability) < 1:
            raise ValueError(f"probability {probability}; expected a number between 0 and 1")
        order = self.cell_log_density.argsort(descending=True)
        mass = self.cell_mass[order].cumsum(0) / self.integral
        return float(self.cell_log_density[order[(mass - probability).abs().argmin()]])

    def region_area_km2(self, probability: float) -> float:
        """Area of the highest-density region, km²."""
        inside = self.cell_log_density >= self.region_threshold(probability)
        return float(self.area[inside].sum()) * sphere.EARTH_RADIUS_KM**2

    def to_geojson(self, probabilities=(0.5, 0.9, 0.95)) -> dict:
        """Highest-density regions as a GeoJSON FeatureCollection, largest first.

        They outline cells of the grid, see `geoflow.gis.outlines.region`: `mass` and `area_km2` are
        what these hold: as near to `probability` as whole cells, or a plateau, allow.
        """
        features = []
        several = [probabilities] if np.ndim(probabilities) == 0 else probabilities
        chosen = {runtime.number(f"probability {p!r}", p) for p in several}
        for probability in sorted(chosen, reverse=True):
            inside = self.cell_log_density >= self.region_threshold(probability)
            mass = float(self.cell_mass[inside].sum()) / self.integral
            known = probability, mass, self.region_area_km2(probability)
            features.append(outlines.region(self.cells[inside], self.levels[inside], *known))
        return {"type": "FeatureCollection", "features": features}

    def to_geotiff(self, path, about: dict | None = None) -> Path:
        """Write a GeoTIFF, return its path: bands probability per km², per pixel; tag `about`."""
        return files.write_geotiff(path, self.log_density, about)

    def to_netcdf(self, path, about: dict | None = None) -> Path:
        """Write a NetCDF file, return its path: `density` per km², `probability` per pixel."""
        return files.write_netcdf(path, self.log_density, about)


# Making a map

COARSEST, FINEST = 3, 17  # HEALPix levels: cells of 7° and of 50 m
SAMPLE_WEIGHTS = (16, 4, 2)
"""Factor of a cell's share of the samples on the coarsest level, the next and all finer ones."""
ROUGHNESS_WEIGHT = 4  # how much the roughness around a cell adds to the weight of its samples


def density_map(
    log_prob: LogDensity,
    samples: Tensor,
    resolution: float = 1.0,
    cell_mass: float = 1 / 240,
    max_cells: int = 20_000,
    desc: str = "",
) -> DensityMap:
    """A density on a HEALPix grid that is refined where the mass is.

    A cell is split into four if it, or one of the cells around it, holds more than `cell_mass`.
    What a cell holds is estimated twice, and the larger estimate counts: by the density at its
    centre, and by its share of the samples, times a weight. The samples find peaks and ridges that
    lie between the centres of coarse cells; where these make the density rough, their weight grows.
    Where many peaks are much narrower than their cells the integral is still not exact;
    `importance_integral` tells whether it is the map or the density.

    >>> samples = sphere.uniform(1000)
    >>> uniform = density_map(lambda x: torch.full((len(x),), sphere.LOG_UNIFORM), samples, 10.0)
    >>> round(uniform.integral, 4), uniform.log_density.shape
    (1.0, torch.Size([18, 36]))

    Args:
        log_prob: see `LogDensity`.
        samples: (n, 3) draws from the same density, some thousands.
        resolution: pixel size of the raster, degrees.
        cell_mass: largest probability of a cell that is not split.
        max_cells: most evaluations of `log_prob`, of which the coarsest grid takes 768. When they
            run out, only the heaviest cells are split; the integral shows whether they sufficed.
        desc: description of a progress bar that counts towards `max_cells`; empty for none.

    Raises:
        ValueError: resolution not in [0.05, 30], max_cells below 768, or a density that is NaN,
            infinite or zero.
    """
    lat, lon = raster_axes(resolution)
    max_cells = runtime.whole(f"max_cells={max_cells!r}", max_cells, 12 * 4**COARSEST)
    done: list[tuple[Tensor, ...]] = []
    cells, before = torch.arange(12 * 4**COARSEST), None
    with runtime.progress(total=max_cells, desc=desc, unit="cell", disable=not desc) as bar:
        for level in range(COARSEST, FINEST + 1):
            x = healpix.centers(cells, level)
            log_density = _in_parts(log_prob, x, bar)
            max_cells -= len(cells)
            area = torch.full_like(log_density, math.pi / (3 * 4**level))
            mass = log_density.exp() * area
            change = _change(mass, before)
            estimate = _largest_mass_around(x, cells, level, mass, change.abs(), samples)
            budget = max_cells // 4 if level < FINEST else 0
            heaviest = estimate.argsort(descending=True)[:budget]
            split = torch.zeros_like(mass, dtype=torch.bool)
            split[heaviest] = estimate[heaviest] > cell_mass
            # A mass computed at a centre errs in proportion to the cell's area, and Richardson's
            # extrapolation would add a third of the change. Half of that is added: cells are split
            # where samples show more mass than the centre, so changes are too large on average.
            better = mass * (1 + change / 6).clamp(0.85, 1.15)
            found = x, area, log_density, better, cells, torch.full_like(cells, level)
            done.append(tuple(values[~split] for values in found))
            cells, before = (4 * cells[split][:, None] + torch.arange(4)).flatten(), mass[split]
            if not len(cells):
                break
    x, area, log_density, mass, *grid = (torch.cat(parts) for parts in zip(*done, strict=True))
    if not 0 < mass.sum() < math.inf:
        raise ValueError(f"log_prob is no density: it integrates to {mass.sum():g}; expected 1")
    raster = rasters.mean_log_density(x, log_density, mass, *grid, lat, lon)
    return DensityMap(lat, lon, raster, x, area, log_density, mass, *grid)


def _in_parts(log_prob: LogDensity, x: Tensor, bar) -> Tensor:
    """Log-densities of places, some thousands at a time."""
    values = []
    for part in x.float().split(4096):
        values.append(log_prob(part).double())
        bar.update(len(part))
    return torch.cat(values)


def _change(mass: Tensor, before: Tensor | None) -> Tensor:
    """How much the mass of a split cell's four parts has changed, as a share of theirs: (M,)."""
    if before is None:
        return torch.zeros_like(mass)
    now = mass.reshape(-1, 4).sum(1).clamp(min=torch.finfo(mass.dtype).tiny)
    return (1 - before / now).repeat_interleave(4)


def _largest_mass_around(x, cells, level: int, mass: Tensor, rough: Tensor, samples) -> Tensor:
    """The rule of splitting: the largest estimate of mass among a cell and those around it."""
    home = healpix.cells(samples, level).sort().values
    count = torch.searchsorted(home, cells, right=True) - torch.searchsorted(home, cells)
    width = math.sqrt(math.pi / 3) / 2**level
    _, near = _tree(x).query(x.numpy(), k=9, distance_upper_bound=1.6 * width)

    def around(values: Tensor) -> Tensor:
        """Values of the cells around each: (M, 9); the tree numbers a missing neighbour M."""
        return torch.cat([values, values.new_zeros(1)])[torch.from_numpy(near)]

    rough = around(rough.clamp(max=1) * count).sum(1) / around(count).sum(1).clamp(min=1)
    weight = SAMPLE_WEIGHTS[min(level - COARSEST, len(SAMPLE_WEIGHTS) - 1)]
    by_samples = weight * (1 + ROUGHNESS_WEIGHT * rough) * count / len(samples)
    return around(torch.maximum(mass, by_samples)).amax(1)


def _tree(x: Tensor):
    from scipy.spatial import KDTree

    return KDTree(x.numpy())


# The integral without a grid

NEAREST = 8  # samples within the width of a kernel
UNIFORM_SHARE = 0.05  # share of the points that are drawn uniformly, where no samples are


def importance_integral(
    log_prob: LogDensity, samples: Tensor, n: int, generator: torch.Generator, desc: str = ""
) -> tuple[float, float]:
    """∫ p over the sphere by importance sampling, the mean of p / q at points drawn from q ≈ p.

    The estimate is unbiased however narrow the peaks of p are. q is a kernel density of samples of
    p, each kernel as wide as the distance to the eighth nearest sample, with a share of the uniform
    density.

    >>> samples, generator = sphere.uniform(100), torch.Generator().manual_seed(0)
    >>> def log_prob(x):
    ...     return torch.full((len(x),), sphere.LOG_UNIFORM)
    >>> integral, error = importance_integral(log_prob, samples, 500, generator)
    >>> abs(integral - 1) < 5 * error
    True

    Args:
        log_prob: see `LogDensity`.
        samples: (m, 3) draws from the same density, many for each peak.
        n: evaluations of `log_prob`.
        generator: source of the points.
        desc: description of a progress bar; empty for none.

    Returns:
        The integral and its standard error.
    """
    centers = samples.double()
    distance, _ = _tree(centers).query(centers.numpy(), k=NEAREST + 1)
    width = torch.from_numpy(distance[:, -1]).clamp(min=1e-6)
    weight = torch.full_like(width, (1 - UNIFORM_SHARE) / len(centers))
    weight = torch.cat([weight, weight.new_tensor([UNIFORM_SHARE])])
    means = torch.cat([centers, centers[:1]])
    concentration = torch.cat([width**-2, width.new_zeros(1)])  # κ = 0 is the uniform density
    kernels = vmf.Mixture(weight.log()[None], means[None], concentration[None])
    ratios = []
    with runtime.progress(total=n, desc=desc, unit="point", disable=not desc) as bar:
        for part in torch.rand(n, 3, generator=generator, dtype=torch.float64).split(1024):
            # Every point is compared with all kernels, so only a few at a time fit into memory.
            few = part.split(64)
            x = torch.cat([kernels.sample(uniforms[None])[0] for uniforms in few]).float()
            log_q = [kernels.log_prob(points[None].double())[0] for points in x.split(64)]
            ratios.append((log_prob(x).double() - torch.cat(log_q)).exp())
            bar.update(len(part))
    ratio = torch.cat(ratios)
    return float(ratio.mean()), float(ratio.std() / math.sqrt(n))
