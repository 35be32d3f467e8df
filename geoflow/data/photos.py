"""Photo files of a person: which ones are meant, where their camera says they were taken, answers about them as a table and for a GIS."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from geoflow import sphere
from geoflow.data import towns
from geoflow.runtime import write_atomically

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
            inside = sorted(
                file
                for file in path.rglob("*")
                if file.suffix.lower() in SUFFIXES and file.is_file()
            )
            if not inside:
                raise ValueError(
                    f"no image file in {path}; expected one that ends in {', '.join(SUFFIXES)}"
                )
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            matching = sorted(
                file
                for file in Path(path.anchor).glob(str(path.relative_to(path.anchor)))
                if file.is_file()
            )
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
    labels = towns.lookup(latlon)
    names = ((city.split("_")[0], region.split("_")[0], country) for city, region, country in
             zip(labels["city"], labels["region"], labels["country"], strict=True))  # fmt: skip
    return [", ".join(filter(None, parts)) for parts in names]


COLUMNS = (
    *("file", "rank", "latitude", "longitude", "mass", "half_within_km", "nearest_town", "exif_km"),
    *("model", "guidance", "seed", "exif"),
)


@dataclass(frozen=True)
class Answers:
    """A table of places, a CSV of `COLUMNS` that grows image by image, so that an interruption loses one image at most.

    Attributes:
        table: the file.
        asked: the last four columns: model, guidance, seed and whether the camera was asked, as text.
        done: files whose k places it holds, by the same question.
    """

    table: Path
    asked: dict[str, str]
    done: frozenset[str]

    def add(self, rows: Iterable[dict]) -> None:
        """Write the places of one image."""
        with self.table.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, COLUMNS).writerows({**row, **self.asked} for row in rows)


def answers(
    table: Path, files: Iterable[Path], k: int, again: Iterable[Path] = (), **asked
) -> Answers:
    """Begin a table of places, or go on with one: what it says about other images, and about these by the same question, is kept.

    Args:
        table: the file.
        files: the images that are asked about.
        k: places of each.
        again: of these images, those to ask about in any case.
        asked: model, guidance, seed, exif.

    Raises:
        ValueError: the file is another table.
    """
    asked = {name: str(value) for name, value in asked.items()}
    rows: list[dict] = []
    if table.exists():
        with table.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or COLUMNS) != COLUMNS:
                raise ValueError(
                    f"{table} has other columns than {', '.join(COLUMNS)}; nothing was overwritten: choose another --out"
                )
            rows = [
                row for row in reader if None not in row.values()
            ]  # a row that was cut off lacks its end
    places_of = Counter(
        row["file"] for row in rows if all(row[name] == value for name, value in asked.items())
    )
    done = frozenset(str(file) for file in files if places_of[str(file)] == k) - {
        str(file) for file in again
    }
    asked_anew = {str(file) for file in files} - done
    kept = [row for row in rows if row["file"] not in asked_anew]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(kept)
    write_atomically(table, text.getvalue())
    return Answers(table, asked, done)


def rows(best, camera: tuple[float, float] | None = None) -> list[dict]:
    """The best places of one image, a dictionary of the first `COLUMNS` after the file for each.

    Args:
        best: `Places` of one image.
        camera: where the camera says it was, in degrees.
    """
    latlon = best.latlon[0].double()
    off = (
        None
        if camera is None
        else sphere.distance_km(
            sphere.from_latlon(latlon), sphere.from_latlon(latlon.new_tensor(camera))
        )
    )
    return [
        {
            "rank": i + 1,
            "latitude": round(float(latlon[i, 0]), 5),
            "longitude": round(float(latlon[i, 1]), 5),
            "mass": round(float(best.mass[0, i]), 4),
            "half_within_km": round(float(best.radius_km[0, i]), 1),
            "nearest_town": town,
            "exif_km": None if off is None else round(float(off[i]), 1),
        }
        for i, town in enumerate(name_of(latlon))
    ]


def to_geojson(density, samples: Tensor, best: Iterable[dict]) -> dict:
    """Everything about one image as a GeoJSON FeatureCollection: regions of 50, 90 and 95 %, samples, best places.

    Args:
        density: a DensityMap.
        samples: (n, 2) degrees.
        best: its best places, see `rows`.
    """
    collection = density.to_geojson()

    def feature(geometry: str, coordinates, **properties) -> dict:
        return {
            "type": "Feature",
            "properties": properties,
            "geometry": {"type": geometry, "coordinates": coordinates},
        }

    positions = [[round(lon, 5), round(lat, 5)] for lat, lon in samples.tolist()]
    collection["features"].append(feature("MultiPoint", positions, samples=len(samples)))
    for row in best:
        properties = {
            name: row[name] for name in ("rank", "mass", "half_within_km", "nearest_town")
        }
        collection["features"].append(
            feature("Point", [row["longitude"], row["latitude"]], **properties)
        )
    return collection
