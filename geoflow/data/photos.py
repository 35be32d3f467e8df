"""Photo files of a person: which ones are meant, what their camera says, a table of answers."""

import csv
import io
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from geoflow import sphere
from geoflow.data import towns
from geoflow.runtime import write_atomically

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".heic", ".avif")
ASKED = ("model", "guidance", "seed", "exif")
COLUMNS = (
    *("file", "rank", "latitude", "longitude", "mass", "half_within_km", "nearest_town", "exif_km"),
    *ASKED,
)


def find(paths: Iterable) -> list[Path]:
    """Image files: a file itself, all in a folder and below, those that match `trip/*.jpg`.

    >>> [file.name for file in find([__file__])]
    ['photos.py']

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: a folder without an image file.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = (file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        else:
            pattern = str(path.relative_to(path.anchor))
            inside = [path] if path.is_file() else Path(path.anchor).glob(pattern)
        found += (matching := sorted(file for file in inside if file.is_file()))
        if path.is_dir() and not matching:
            ends = ", ".join(SUFFIXES)
            raise ValueError(f"no image file in {path}; expected one that ends in {ends}")
        if not matching:
            raise FileNotFoundError(f"no image file at {path}")
    return list(dict.fromkeys(found))


def stems(files: Iterable[Path]) -> Iterator[str]:
    """A name for each file's results: its stem, numbered where another file took it.

    >>> list(stems([Path("a.jpg"), Path("x/a.jpg"), Path("b.png")]))
    ['a', 'a-2', 'b']
    """
    taken: set[str] = set()
    for file in files:
        numbered = (f"{file.stem}-{number}" for number in itertools.count(2))
        name = next(name for name in itertools.chain([file.stem], numbered) if name not in taken)
        taken.add(name)
        yield name


def exif_latlon(file) -> tuple[float, float] | None:
    """Latitude and longitude by the camera, degrees, which no model sees; None if it does not say.

    >>> exif_latlon(__file__) is None  # no photo
    True
    """
    try:
        with Image.open(file) as image:
            gps = image.getexif().get_ifd(ExifTags.IFD.GPSInfo)
    except (UnidentifiedImageError, OSError):
        return None
    lat = _degrees(gps, ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLatitudeRef, "S")
    lon = _degrees(gps, ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSLongitudeRef, "W")
    return (lat, lon) if abs(lat) <= 90 and abs(lon) <= 180 else None


def _degrees(gps: dict, value: int, side: int, negative: str) -> float:
    """Degrees of (degrees, minutes, seconds); NaN if they are missing or no numbers."""
    try:
        degrees, minutes, seconds = (float(part) for part in gps[value])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return math.nan
    return (degrees + minutes / 60 + seconds / 3600) * (-1 if gps.get(side) == negative else 1)


class Answers:
    """A table of places: a CSV of `COLUMNS` that grows image by image.

    A table that is there is continued, so that an interruption loses one image at most. Rows of
    other images, and of these images by the same question, are kept. `done` names the files whose
    k places the table holds. Another table is refused by a ValueError.

    Args:
        files: the images that are asked about.
        k: places of each.
        again: of these images, those to ask about in any case.
        asked: the columns `ASKED`: model, guidance, seed, and whether the camera was asked.
    """

    def __init__(
        self, table: Path, files: Iterable[Path], k: int, again: Iterable[Path] = (), **asked
    ):
        self.table, self.asked = table, {name: str(value) for name, value in asked.items()}
        kept = self._read()
        same = Counter(row["file"] for row in kept if self.asked.items() <= row.items())
        names, anew = {str(file) for file in files}, {str(file) for file in again}
        self.done = frozenset(name for name in names - anew if same[name] == k)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(row for row in kept if row["file"] not in names - self.done)
        write_atomically(table, text.getvalue())

    def _read(self) -> list[dict]:
        """The rows of the table, without one that was cut off."""
        if not self.table.exists():
            return []
        with self.table.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or COLUMNS) != COLUMNS:
                columns = f"{self.table} has other columns than {', '.join(COLUMNS)}"
                raise ValueError(f"{columns}; nothing was overwritten: choose another --out")
            return [row for row in reader if None not in row.values()]

    def add(self, rows: Iterable[dict]) -> None:
        """Write the places of one image."""
        with self.table.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, COLUMNS).writerows({**row, **self.asked} for row in rows)


def rows(best, camera: tuple[float, float] | None = None) -> list[dict]:
    """The best places of one image, each a dictionary of the columns from rank to exif_km.

    >>> from geoflow import Geolocator
    >>> best = Geolocator.from_pretrained("land").predict(k=2, n=50)
    >>> [row["rank"] for row in rows(best, camera=(48.86, 2.29))]  # degrees
    [1, 2]
    """
    latlon = best.latlon[0].double()
    off: list = [None] * len(latlon)
    if camera is not None:
        places = sphere.from_latlon(latlon), sphere.from_latlon(latlon.new_tensor(camera))
        off = [round(km, 1) for km in sphere.distance_km(*places).tolist()]
    return [
        {
            "rank": i + 1,
            "latitude": round(float(latlon[i, 0]), 5),
            "longitude": round(float(latlon[i, 1]), 5),
            "mass": round(float(best.mass[0, i]), 4),
            "half_within_km": round(float(best.radius_km[0, i]), 1),
            "nearest_town": town,
            "exif_km": off[i],
        }
        for i, town in enumerate(towns.name_of(latlon))
    ]


def to_geojson(density, samples: Tensor, best: Iterable[dict]) -> dict:
    """A GeoJSON FeatureCollection of one image: regions of 50, 90 and 95 %, samples, best places.

    The density is a `DensityMap`, the samples are (n, 2) degrees, the best places those of `rows`.

    >>> from geoflow import Geolocator
    >>> geo = Geolocator.from_pretrained("land")
    >>> found = to_geojson(geo.density(resolution=20.0), geo.sample(n=50)[0], best=[])
    >>> [feature["geometry"]["type"] for feature in found["features"]]
    ['MultiPolygon', 'MultiPolygon', 'MultiPolygon', 'MultiPoint']
    """

    def feature(geometry: str, coordinates: list, **properties) -> dict:
        shape = {"type": geometry, "coordinates": coordinates}
        return {"type": "Feature", "properties": properties, "geometry": shape}

    positions = [[round(lon, 5), round(lat, 5)] for lat, lon in samples.tolist()]
    features = [feature("MultiPoint", positions, samples=len(samples))]
    for row in best:
        about = {name: row[name] for name in ("rank", "mass", "half_within_km", "nearest_town")}
        features.append(feature("Point", [row["longitude"], row["latitude"]], **about))
    collection = density.to_geojson()
    collection["features"] += features
    return collection
