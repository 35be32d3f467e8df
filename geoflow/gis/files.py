"""Rasters and regions of a density as files: GeoTIFF, NetCDF, GeoJSON features."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from geoflow import runtime, sphere
from geoflow.gis.rasters import pixel_areas

PER_KM2, PER_PIXEL = "probability per square kilometre", "probability of the pixel"
NOTE = (
    "A probability density on a sphere of radius 6371 km: the mass of the cells of its grid in the "
    f"pixels that they overlap. '{PER_PIXEL}' adds up to the probability of a region of many "
    f"pixels, and over all to the integral. '{PER_KM2}' is the mean over a pixel, alike at all "
    "latitudes."
)


def layers(log_density: Tensor) -> dict[str, np.ndarray]:
    """Layers of a raster (H, 2H) of nats per steradian, float32, by their names."""
    density = log_density.exp()
    mass = density * pixel_areas(len(density))[:, None]
    named = {PER_KM2: density / sphere.EARTH_RADIUS_KM**2, PER_PIXEL: mass}
    return {name: values.float().numpy() for name, values in named.items()}


def _to_write(path) -> Path:
    """The path of a file to be written; a ValueError if it is empty or a folder."""
    if not str(path) or Path(path).is_dir():
        raise ValueError(f"{str(path)!r} is no file; expected a path to write to, such as map.tif")
    return Path(path)


def source(about: dict | None) -> dict[str, str]:
    """The tag of a file that says of what question it is the answer, as JSON; none without one.

    >>> source({"file": "a.png", "seed": 0})
    {'source': '{"file": "a.png", "seed": 0}'}
    """
    return {"source": json.dumps(about, default=str)} if about else {}


def write_geotiff(path, log_density: Tensor, about: dict | None = None) -> Path:
    """Write a raster as GeoTIFF, EPSG:4326, north up; its bands are the layers. Return its path.

    `about` becomes its tag `source`.
    """
    import rasterio
    from rasterio.transform import from_bounds

    target = _to_write(path)
    bands, (height, width) = layers(log_density), log_density.shape
    profile: dict[str, Any] = dict(driver="GTiff", dtype="float32")
    profile |= dict(count=len(bands), height=height, width=width)
    profile |= dict(crs="EPSG:4326", transform=from_bounds(-180, -90, 180, 90, width, height))
    profile |= dict(nodata=float("nan"), compress="deflate", predictor=3)
    memory = io.BytesIO()  # on a full disk GDAL would leave half a file without an error
    with rasterio.open(memory, "w", **profile) as file:
        for band, (name, values) in enumerate(bands.items(), start=1):
            file.write(values, band)
            file.set_band_description(band, name)
            file.set_band_unit(band, "1/km²" if name == PER_KM2 else "1")
        file.update_tags(**source(about), unit=PER_KM2, description=NOTE)
    with runtime.replacing(target) as partial:
        partial.write_bytes(memory.getvalue())
    return target


def write_netcdf(path, log_density: Tensor, about: dict | None = None) -> Path:
    """Write a raster as NetCDF 3 with the layers as variables (CF conventions); return its path.

    `xarray.open_dataset(path)` reads it. `about` becomes its attribute `source`.
    """
    from rasterio import CRS
    from scipy.io import netcdf_file

    target = _to_write(path)
    axes = (
        ("lat", 90, -1, "degrees_north", "latitude"),
        ("lon", -180, 1, "degrees_east", "longitude"),
    )
    density, mass = layers(log_density).items()
    shown = {"density": (*density, "km-2"), "probability": (*mass, "1")}
    with runtime.replacing(target) as partial, netcdf_file(partial, "w", version=2) as file:
        for name, text in source(about).items():
            setattr(file, name, text)
        file.Conventions, file.comment = "CF-1.8", NOTE
        for (name, start, way, units, words), count in zip(axes, log_density.shape, strict=True):
            file.createDimension(name, count)
            variable = file.createVariable(name, "f8", (name,))
            variable[:] = start + way * (np.arange(count) + 0.5) * 180 / len(log_density)
            variable.units, variable.standard_name = units, words
        crs = file.createVariable("crs", "i4", ())
        crs.grid_mapping_name, crs.crs_wkt = "latitude_longitude", CRS.from_epsg(4326).to_wkt()
        for name, (words, values, units) in shown.items():
            variable = file.createVariable(name, "f4", ("lat", "lon"))
            variable[:], variable.units, variable.long_name = values, units, words
            variable.grid_mapping = "crs"
    return target
