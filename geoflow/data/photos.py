"""Photo files of a person: which ones are meant, what their camera says, a table of answers."""

import csv
import io
import itertools
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from geoflow import runtime, sphere
from geoflow.data import exif, tiles, towns
from geoflow.data.images import load_image, open_photo

SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"),
    *(".heic", ".heif", ".avif"),
)
RESULTS = {"map": ".png", "geojson": ".geojson", "geotiff": ".tif"}  # of each image
ASKED = ("model", "weights", "guidance", "seed", "samples", "exif")
COLUMNS = (
    *("file", "sha256", "rank", "latitude", "longitude", "mass", "half_within_km"),
    *("nearest_town", "town_km", "exif_km", "warning", *RESULTS, *ASKED),
)

# Which files


def find(
    paths: Iterable | str | Path, unreadable: Callable[[str], object] = lambda line: None
) -> list[Path]:
    """Image files: a file itself, all in a folder and below, those that match `trip/*.jpg`.

    What `geoflow locate` wrote is no photo, wherever it lies, nor are files that begin with `._`,
    in which macOS keeps what it knows of a photo.

    >>> [file.name for file in find(__file__)]
    ['photos.py']

    Args:
        paths: one, or several.
        unreadable: called with a line about each path, or entry of a folder, that may be an image,
            or hold some, and cannot be read, such as a link to nothing.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: a folder without an image file, or nothing but results of `geoflow locate`.
    """
    paths = [Path(path) for path in ([paths] if isinstance(paths, (str, Path)) else paths)]
    found: list[Path] = []
    written: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = [file for file in _below(path, unreadable) if not _is_result(file)]
            if not inside:
                ends = f"expected one that ends in {', '.join(SUFFIXES)}"
                raise ValueError(f"no image file in {shown(path)}; {ends}")
        elif os.path.lexists(path):
            if _is_result(path):
                written.append(path)  # a shell expands *.png to results as well
                continue
            inside = [path] if _is_regular(path, unreadable) else []
        else:
            pattern = str(path.relative_to(path.anchor))
            matching = sorted(file for file in Path(path.anchor).glob(pattern) if file.is_file())
            inside = [file for file in matching if not _is_result(file)]
            if not inside:
                raise FileNotFoundError(f"no image file at {shown(path)}")
        found += inside
    if written and not found:
        raise ValueError(f"{shown(written[0])} was written by geoflow locate; expected a photo")
    if paths and not found:
        raise FileNotFoundError(f"no image file at {', '.join(map(shown, paths))}")
    once: dict[str, Path] = {}
    for file in found:
        once.setdefault(os.path.realpath(file), file)
    return list(once.values())


def _below(folder: Path, unreadable: Callable[[str], object]) -> Iterator[Path]:
    """Image files in a folder and below, through links too, each folder once."""
    seen = set()

    def refused(error: OSError) -> None:
        unreadable(f"{shown(error.filename)} cannot be read: {error.strerror}")

    for here, folders, names in os.walk(folder, onerror=refused, followlinks=True):
        if (real := os.path.realpath(here)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for file in (Path(here, name) for name in sorted(names)):
            wanted = file.suffix.lower() in SUFFIXES and not file.name.startswith("._")
            if wanted and _is_regular(file, unreadable):
                yield file


def _is_regular(file: Path, unreadable: Callable[[str], object]) -> bool:
    if file.is_file():
        return True
    what = "a link to nothing" if file.is_symlink() else "no regular file"
    unreadable(f"{shown(file)} cannot be read: it is {what}")
    return False


def shown(path) -> str:
    """A path on one line of text: line breaks, and bytes that are no text, are escaped.

    >>> shown("two\\nlines.jpg")
    'two\\\\nlines.jpg'
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(path))


def identity(file) -> str:
    """The path of a file without links, as text. With its checksum it identifies an image."""
    return shown(os.path.realpath(file))


def results(stem: Path) -> dict[str, Path]:
    """The files of an image's map, regions and raster."""
    return {kind: stem.with_name(stem.name + ending) for kind, ending in RESULTS.items()}


def stem_for(folder: Path, file) -> Path:
    """Where the results of an image go: its own stem, numbered where other files have that name."""
    name = re.sub(r"[^\w .,()&'+=@~-]", "_", Path(file).stem)[:50]
    for number in itertools.count(1):
        stem = folder / (name if number == 1 else f"{name}-{number}")
        files = results(stem).values()
        if _owner(stem) == identity(file) or not any(map(os.path.lexists, files)):
            return stem
    raise AssertionError  # the count has no end


def _owner(stem: Path) -> str | None:
    """The image whose results have this stem, as their GeoJSON says; None if there are none."""
    try:
        return runtime.read_json(results(stem)["geojson"])["features"][0]["properties"]["file"]
    except (OSError, ValueError, LookupError, TypeError):
        return None  # there is no file, or geoflow did not write it


def _is_result(file: Path) -> bool:
    return file.suffix in RESULTS.values() and _owner(file.with_suffix("")) is not None


# What a photo says


@dataclass(frozen=True)
class Photo:
    """What is known of a photo."""

    file: Path
    sha256: str  # of the file, 16 digits
    image: Image.Image  # RGB, upright
    place: tuple[float, float] | None  # by the camera, degrees
    no_place: str  # why there is none; empty if there is one
    unlike_tile: str  # how it differs from a satellite tile; empty if it does not


def read(file) -> Photo:
    """A photo, and what its EXIF data say.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "photo.png"
    >>> Image.new("RGB", (640, 480)).save(file)
    >>> photo = read(file)
    >>> photo.place, photo.no_place
    (None, 'its EXIF data have no place')

    Raises:
        OSError: it is not there, or may not be read.
        ValueError: it cannot be read as an image.
    """
    data = Path(file).read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of EXIF blocks; what cannot be told is said
        image = load_image(data, shown(file))
        with open_photo(data) as opened:
            width, height = opened.size
            camera, (place, why) = exif.camera(opened), exif.place(opened)
    differences = [f"its EXIF names a camera, {shown(camera)}"] if camera else []
    if width != height or not tiles.SIZE / 2 <= width <= 2 * tiles.SIZE:
        differences.insert(0, f"it has {width} × {height} pixels")
    sha256 = runtime.sha256_of(data)[:16]
    return Photo(Path(file), sha256, image, place, why, "; ".join(differences))


def exif_latlon(file) -> tuple[float, float] | None:
    """Latitude and longitude by the camera, degrees, which no model sees; None if it does not say.

    >>> exif_latlon(__file__) is None  # no photo
    True
    """
    try:
        return read(file).place
    except (ValueError, OSError):
        return None


# The table of answers


class Answers:
    """A table of places: a CSV of `COLUMNS` that grows image by image.

    A table that is there is continued: an interruption loses one image at most. An image is known
    by its path and its content. Its rows are replaced when its new answer is there. A `ValueError`
    refuses another table, or a damaged one.

    Args:
        k: places of each image.
        mapped: whether an answer includes the files of `RESULTS`.
        asked: the columns `ASKED`: model, its weights, guidance, seed, samples, and whether the
            camera was asked.
    """

    def __init__(self, table: Path, k: int, mapped: bool = False, **asked):
        self.table, self.k, self.mapped = table, k, mapped
        self.asked = {name: str(value) for name, value in asked.items()}
        self.rows: dict[str, list[dict]] = {}
        for row in self._read():
            self.rows.setdefault(row["file"], []).append(row)
        self._write()

    def _read(self) -> list[dict]:
        """The rows of the table, without one that was cut off."""
        if not self.table.exists():
            return []
        try:
            text = self.table.read_text(encoding="utf-8-sig")
            lines = io.StringIO(text[: text.rfind("\n") + 1], newline="")
            reader = csv.DictReader(lines, strict=True)
            columns, rows = tuple(reader.fieldnames or COLUMNS), list(reader)
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{self.table} is damaged: {error}; mend it or delete it") from error
        if columns != COLUMNS:
            what = f"{self.table} has other columns than this version's {', '.join(COLUMNS)}"
            raise ValueError(f"{what}; nothing was overwritten: choose another --out")
        for number, row in enumerate(rows, 2):
            if None in row or None in row.values():
                what = f"{self.table} is damaged: row {number} has not {len(COLUMNS)} columns"
                raise ValueError(f"{what}; mend it or delete it")
        return rows

    def _write(self) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(itertools.chain.from_iterable(self.rows.values()))
        runtime.write_atomically(self.table, text.getvalue())

    def of(self, file: Path) -> list[dict]:
        """The rows of an image; none if it is not answered."""
        return self.rows.get(identity(file), [])

    def hold(self, file: Path) -> bool:
        """Whether this question is answered for this content of the file, its results included."""
        rows = self.of(file)
        if len(rows) != self.k or not all(self.asked.items() <= row.items() for row in rows):
            return False
        if self.mapped:
            names = [rows[0][kind] for kind in RESULTS]
            if not all(name and (self.table.parent / name).is_file() for name in names):
                return False
        try:
            return rows[0]["sha256"] == runtime.sha256(file)[:16]
        except OSError:
            return False  # reading it later raises an error that names the file

    def add(self, photo: Photo, places: Iterable[dict], **more) -> None:
        """Write the places of one image, as `rows` has them, in place of its former ones."""
        about = {"file": identity(photo.file), "sha256": photo.sha256, **self.asked, **more}
        former = self.rows.get(about["file"])
        added = [{**row, **about} for row in places]
        if not former:
            with self.table.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, COLUMNS, lineterminator="\n").writerows(added)
        self.rows[about["file"]] = added  # counted once it is in the table
        if former:
            self._write()

    def drop(self, file: Path) -> None:
        """Forget an image that can no longer be read."""
        if self.rows.pop(identity(file), None):
            self._write()


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
            "town_km": round(km, 1) if town else None,
            "exif_km": off[i],
        }
        for i, (town, km) in enumerate(towns.nearest(latlon))
    ]


def to_geojson(density, samples: Tensor, best: Iterable[dict], about: dict | None = None) -> dict:
    """A GeoJSON FeatureCollection of one image: regions of 50, 90 and 95 %, samples, best places.

    The density is a `DensityMap`, the samples are (n, 2) degrees, the best places those of `rows`.
    Every feature has the properties `about` too.

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
        names = ("rank", "mass", "half_within_km", "nearest_town", "town_km")
        properties = {name: row[name] for name in names}
        features.append(feature("Point", [row["longitude"], row["latitude"]], **properties))
    collection = density.to_geojson()
    collection["features"] += features
    for feature_ in collection["features"]:
        feature_["properties"] |= about or {}
    return collection
