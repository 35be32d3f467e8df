"""Photo files of a person: which ones are meant, what their camera says, a table of answers."""

import csv
import io
import itertools
import math
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
from geoflow.data.typed import on_one_line

SUFFIXES = (  # of what `images.FORMATS` reads
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".tif", ".tiff"),
    *(".bmp", ".gif", ".heic", ".heics", ".heif", ".heifs", ".hif", ".avif", ".avifs"),
    *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".pbm", ".pgm", ".ppm", ".pnm"),
)
TABLE = "places.csv"
RESULTS = {"map": ".png", "geojson": ".geojson", "geotiff": ".tif"}  # of each image
ASKED = ("model", "weights", "guidance", "seed", "samples", "exif")
MARKS = ("file", "sha256", "model", "guidance", "seed", "samples")  # columns that a GeoJSON has too
NUMBERS = ("rank", "latitude", "longitude", "mass", "half_within_km")
COLUMNS = (
    *("file", "sha256", *NUMBERS),
    *("nearest_town", "town_km", "exif_km", "warning", *RESULTS, *ASKED),
)

# Which files


def find(
    paths: Iterable | str | Path,
    unreadable: Callable[[str], object] = lambda line: None,
    ignored: Callable[[Path], object] = lambda file: None,
) -> list[Path]:
    """Image files: a file itself, all in a folder and below, those that match `trip/*.jpg`.

    What `geoflow locate` wrote is no photo, wherever it lies, nor are files of folders and patterns
    that begin with `._`, in which macOS keeps what it knows of a photo.

    >>> [file.name for file in find(__file__)]
    ['photos.py']

    Args:
        paths: one, or several.
        unreadable: called with a line about each path, entry of a folder, or match of a pattern,
            that may be an image, or hold some, and cannot be read, such as a link to nothing.
        ignored: called with each file of a folder that is not looked at, since its name has none of
            the endings `SUFFIXES`. Hidden files and those of `geoflow locate` are passed over.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: an empty path, a folder without an image file, a pattern that is none, or
            nothing but results of `geoflow locate`.
    """
    paths = [paths] if isinstance(paths, (str, Path)) else list(paths)
    if "" in paths:
        raise ValueError("an empty path; expected an image file, a folder or a pattern")
    paths = [Path(path) for path in paths]
    found: list[Path] = []
    written: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = list(_below(path, unreadable, ignored))
            if not inside:
                ends = f"expected one that ends in {', '.join(SUFFIXES)}"
                raise ValueError(f"no image file in {shown(path)}; {ends}")
        elif os.path.lexists(path):
            if _is_result(path):
                written.append(path)  # a shell expands *.png to results as well
                continue
            inside = [path] if _is_regular(path, unreadable) else []
        else:
            inside = [file for file in _matching(path) if _is_photo(file, unreadable)]
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


def _matching(pattern: Path) -> list[Path]:
    """What matches a pattern and is no folder."""
    try:
        matching = sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
    except (ValueError, NotImplementedError) as error:
        text = f"no image file at {shown(pattern)}, and as a pattern it is not valid"
        raise ValueError(f"{text}: {error}") from error
    return [file for file in matching if not file.is_dir()]


def _below(
    folder: Path, unreadable: Callable[[str], object], ignored: Callable[[Path], object]
) -> Iterator[Path]:
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
            if file.suffix.lower() in SUFFIXES:
                if _is_photo(file, unreadable):
                    yield file
            elif not (file.name.startswith(".") or file.name == TABLE or _is_result(file)):
                ignored(file)


def _is_photo(file: Path, unreadable: Callable[[str], object]) -> bool:
    """Whether a file that a folder or a pattern holds may be a photo."""
    macos = file.name.startswith("._")
    return not macos and _is_regular(file, unreadable) and not _is_result(file)


def _is_regular(file: Path, unreadable: Callable[[str], object]) -> bool:
    if file.is_file():
        return True
    what = "a link to nothing" if file.is_symlink() else "no regular file"
    unreadable(f"{shown(file)} cannot be read: it is {what}")
    return False


def shown(path) -> str:
    """A path on one line of text: line breaks, and bytes that are no text, are escaped.

    So are backslashes, unless they separate folders: different paths are shown differently.

    >>> shown("two\\nlines.jpg")
    'two\\\\nlines.jpg'
    """
    plain = str.maketrans({} if os.sep == "\\" else {"\\": r"\\"})
    return on_one_line(str(path).translate(plain))


def identity(file) -> str:
    """The path of a file without links, as text. With its checksum it identifies an image."""
    return shown(os.path.realpath(file))


def results(stem: Path) -> dict[str, Path]:
    """The files of an image's map, regions and raster."""
    return {kind: stem.with_name(stem.name + ending) for kind, ending in RESULTS.items()}


def stem_for(folder: Path, file) -> Path:
    """Where the results of an image go: its own stem, numbered where other files have that name.

    It never begins with a dot, which hides files, or a dash, which programs take for an option.
    """
    name = re.sub(r"[^\w .,()&'+=@~-]", "_", Path(file).stem)[:50]
    name = name.lstrip(".-").rstrip(".") or "photo"
    for number in itertools.count(1):
        stem = folder / (name if number == 1 else f"{name}-{number}")
        files = results(stem)
        owner = _about(files["geojson"]).get("file")
        if owner == identity(file) or not any(map(os.path.lexists, files.values())):
            return stem
    raise AssertionError  # the count has no end


def _about(geojson: Path) -> dict:
    """The image and the question of a GeoJSON, as `MARKS`; empty if geoflow did not write it."""
    try:
        found = runtime.read_json(geojson)["features"][0]["properties"]
        return {name: found[name] for name in MARKS}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _is_result(file: Path) -> bool:
    geojson = file.with_name(file.stem + RESULTS["geojson"])
    return file.suffix in RESULTS.values() and bool(_about(geojson))


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
    by its path and its content. A `ValueError` refuses another table, or a damaged one. Rows with
    NUL bytes, or whose numbers are not finite, are left out, so that their images are asked again.

    Args:
        k: places of each image.
        mapped: whether an answer includes the files of `RESULTS`.
        told: called with a line about rows that are left out.
        asked: the columns `ASKED`: model, its weights, guidance, seed, samples, and whether the
            camera was asked.
    """

    def __init__(
        self,
        table: Path,
        k: int,
        mapped: bool = False,
        told: Callable[[str], object] = lambda line: None,
        **asked,
    ):
        self.table, self.k, self.mapped, self.told = table, k, mapped, told
        # A row is one line, so that a row that was cut off is known.
        self.asked = {name: on_one_line(str(value)) for name, value in asked.items()}
        self.rows: dict[str, list[dict]] = {}
        for row in self._read():
            self.rows.setdefault(row["file"], []).append(row)
        self._write()

    def _read(self) -> list[dict]:
        """The rows of the table, without one that was cut off, and without damaged ones."""
        if not self.table.exists():
            return []
        try:
            text = self.table.read_text(encoding="utf-8-sig")
            lines = text[: text.rfind("\n") + 1].splitlines(keepends=True)
            whole = [line for line in lines if "\0" not in line]
            reader = csv.DictReader(io.StringIO("".join(whole), newline=""), strict=True)
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
        faults = [_fault(row) for row in rows]
        lost = ["it holds NUL bytes"] * (len(lines) - len(whole)) + list(filter(None, faults))
        if lost:
            of = runtime.count(len(lost), "damaged row")
            what = f"{self.table}: of {of} the first: {lost[0]}"
            self.told(f"{what}; what they answered is asked again")
        return [row for row, fault in zip(rows, faults, strict=True) if not fault]

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
        if self.mapped and not self._are_there(rows[0]):
            return False
        try:
            return rows[0]["sha256"] == runtime.sha256(file)[:16]
        except OSError:
            return False  # reading it later raises an error that names the file

    def _are_there(self, row: dict) -> bool:
        """Whether the files of an answer are there, not empty, and those of its own question."""
        files = [self.table.parent / row[kind] for kind in RESULTS]
        if not all(file.is_file() and file.stat().st_size for file in files):
            return False
        about = _about(self.table.parent / row["geojson"])
        return all(on_one_line(str(about.get(name))) == row[name] for name in MARKS)

    def add(self, photo: Photo, places: Iterable[dict], **more) -> None:
        """Write the places of one image, as `rows` has them, in place of any former ones."""
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
        """Forget an image that can no longer be read, or whose files will be another answer's."""
        if self.rows.pop(identity(file), None):
            self._write()


def _fault(row: dict) -> str:
    """Which number of a row is none; empty if all are finite. Distances may be absent."""
    given = [name for name in ("town_km", "exif_km") if row[name]]
    for name in (*NUMBERS, *given):
        try:
            finite = math.isfinite(float(row[name]))
        except ValueError:
            finite = False
        if not finite:
            return f"the {name} is {row[name][:40]!r}, expected a finite number"
    return ""


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
