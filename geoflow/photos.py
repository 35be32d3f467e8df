"""Photo files of a person: which ones are meant, where their camera says they were taken, answers about them for a GIS."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from geoflow import places

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".heic", ".avif")


def find(paths: Iterable) -> list[Path]:
    """Image files: of a file itself, of a folder all in it and below, of a pattern such as `trip/*.jpg` those that match.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: a folder without an image file.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
            if not inside:
                raise ValueError(f"no image file in {path}; expected one that ends in {', '.join(SUFFIXES)}")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            matching = sorted(file for file in Path(path.anchor).glob(str(path.relative_to(path.anchor))) if file.is_file())
            if not matching:
                raise FileNotFoundError(f"no image file at {path}")
            found += matching
    return list(dict.fromkeys(found))


def stems(files: Iterable[Path]) -> Iterator[str]:
    """A name for each file's results: its stem, numbered where another file took it."""
    taken: set[str] = set()
    for file in files:
        name, number = file.stem, 1
        while name in taken:
            number += 1
            name = f"{file.stem}-{number}"
        taken.add(name)
        yield name


def exif_latlon(file) -> tuple[float, float] | None:
    """Where the camera says that the photo was taken: latitude and longitude in degrees, or None if it does not say.

    No model sees this; it is for comparison.
    """
    try:
        with Image.open(file) as image:
            gps = image.getexif().get_ifd(ExifTags.IFD.GPSInfo)
    except (UnidentifiedImageError, OSError):
        return None
    lat = _degrees(gps, ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLatitudeRef, "S")
    lon = _degrees(gps, ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSLongitudeRef, "W")
    if lat is None or lon is None:
        return None
    return (lat, lon) if abs(lat) <= 90 and abs(lon) <= 180 else None


def _degrees(gps: dict, value: int, side: int, negative: str) -> float | None:
    """Degrees of (degrees, minutes, seconds), or None if they are missing or no numbers."""
    try:
        degrees, minutes, seconds = (float(part) for part in gps[value])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (degrees + minutes / 60 + seconds / 3600) * (-1 if gps.get(side) == negative else 1)


def name_of(latlon: Tensor) -> list[str]:
    """The nearest town of each place with its region and country: (N, 2) → "Quetta, Balochistan, PK"; at sea it may be far."""
    labels = places.lookup(latlon)
    names = ((city.split("_")[0], region.split("_")[0], country) for city, region, country in
             zip(labels["city"], labels["region"], labels["country"], strict=True))  # fmt: skip
    return [", ".join(filter(None, parts)) for parts in names]


def to_geojson(density, samples: Tensor, best, names: list[str]) -> dict:
    """Everything about one image as a GeoJSON FeatureCollection: regions of 50, 90 and 95 %, samples, best places.

    Args:
        density: a DensityMap.
        samples: (n, 2) degrees.
        best: `Places` of one image.
        names: of its k places.
    """
    collection = density.to_geojson()

    def positions(latlon: Tensor) -> list[list[float]]:
        return [[round(lon, 5), round(lat, 5)] for lat, lon in latlon.tolist()]

    def feature(geometry: str, coordinates, **properties) -> dict:
        return {"type": "Feature", "properties": properties, "geometry": {"type": geometry, "coordinates": coordinates}}

    collection["features"].append(feature("MultiPoint", positions(samples), samples=len(samples)))
    for rank, place in enumerate(positions(best.latlon[0])):
        mass, radius = float(best.mass[0, rank]), float(best.radius_km[0, rank])
        properties = {"rank": rank + 1, "mass": round(mass, 4), "half_within_km": round(radius, 1), "nearest_town": names[rank]}
        collection["features"].append(feature("Point", place, **properties))
    return collection
