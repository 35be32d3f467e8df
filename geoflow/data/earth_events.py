"""Earth events: volcanic eruptions, earthquakes, floods and fires as points on the sphere.

They are a benchmark of Mathieu & Nickel (2020). The four files are those of the public repository
oxcsml/riemannian-score-sde (sources: NOAA NGDC, Dartmouth Flood Observatory, NASA FIRMS). The
command `geoflow data fetch earth-events` gets them; they have 370 kB.
"""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from geoflow import runtime

COMMIT = "5b48a7f7e175894afb6933f5e5f367b5a0eb65d7"
URL = f"https://raw.githubusercontent.com/oxcsml/riemannian-score-sde/{COMMIT}/data"


@dataclass(frozen=True)
class Source:
    """One file."""

    file: str
    sha256: str
    events: int  # how many it holds


SOURCES = {
    "volcano": Source(
        "volerup.csv", "f7bbaf32a412f5fe82350f48e0c55100be260803969c16557343f687fd0593fc", 827
    ),
    "earthquake": Source(
        "quakes_all.csv", "3e5e1a10fb2faf1899106264289334037d039f00f5265d13dad388a93d8ff2f7", 6120
    ),
    "flood": Source(
        "flood.csv", "ffb1e3182c3053afcdeceec4727c262a29da10255d20747c08144da5b0963486", 4875
    ),
    "fire": Source(
        "fire.csv", "c5c6c9490b1d8c58ba9eb78d9e2f82d1c1e62694ca5cff917c54600d3d83f459", 12809
    ),
}


def load(name: str, root=None) -> Tensor:
    """Latitude and longitude in degrees of all events of a kind: (n, 2) float64.

    >>> import tempfile
    >>> load("volcano", tempfile.mkdtemp())  # an empty folder
    Traceback (most recent call last):
    FileNotFoundError: no volerup.csv in ...: geoflow data fetch earth-events --root ...

    Args:
        name: `volcano`, `earthquake`, `flood` or `fire`.
        root: folder of the files; default: where `geoflow data fetch earth-events` puts them.

    Raises:
        ValueError: an unknown name, or a file that is not the published one.
        FileNotFoundError: the file is missing; the message says how to get it.
    """
    source = SOURCES[runtime.choose("events", name, SOURCES)]
    folder = default_root() if root is None else Path(root)
    file = folder / source.file
    if not file.is_file():
        get = f"geoflow data fetch earth-events --root {folder}"
        raise FileNotFoundError(f"no {file.name} in {folder}: {get}")
    latlon = read(file)
    if runtime.sha256(file) != source.sha256:
        text = f"{file} is not the published file: {len(latlon)} events"
        raise ValueError(f"{text}, expected {source.events} with sha256 {source.sha256[:16]}…")
    return latlon


def default_root() -> Path:
    """Where the files are looked for."""
    return runtime.cache_dir() / "earth_events"


def read(file) -> Tensor:
    """Latitude and longitude in degrees from a CSV of two columns: (n, 2) float64.

    Comments (#) and a header are skipped. Malformed rows and places that are not on Earth are a
    ValueError, which names the first.
    """
    file = Path(file)
    rows, malformed = [], []
    try:
        lines = list(csv.reader(file.read_text(encoding="utf-8-sig").splitlines()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} is damaged or no CSV: {error}") from error
    for number, row in enumerate(lines, 1):
        first = row[0].strip().lower() if row else "#"
        if first.startswith("#") or (not (rows or malformed) and first in ("lat", "latitude")):
            continue
        try:
            lat, lon = map(float, row)
        except ValueError:
            lat = lon = math.nan
        if abs(lat) <= 90 and abs(lon) <= 180:
            rows.append((lat, lon))
        else:
            malformed.append(f"line {number}, {','.join(row)[:60]!r}")
    if malformed:
        count = f"{len(malformed)} rows hold no latitude, longitude in degrees"
        raise ValueError(f"{file}: {count}; the first is {malformed[0]}")
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 2)


def split(latlon: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Train, validation and test events of a random split, 80 / 10 / 10 %, of at least 10.

    >>> [len(part) for part in split(torch.zeros(46, 2), seed=0)]
    [38, 4, 4]
    """
    n = len(latlon)
    if n < 10:
        raise ValueError(f"{n} events to split; expected at least 10")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    train, validation, test = latlon[order].split([n - 2 * (n // 10), n // 10, n // 10])
    return train, validation, test


def distinct(latlon: Tensor) -> Tensor:
    """Each place once, in the order of first appearance.

    Most volcanoes erupted several times, at exactly the same coordinates.

    >>> distinct(torch.tensor([[3.0, 1.0], [1.0, 1.0], [3.0, 1.0]])).tolist()
    [[3.0, 1.0], [1.0, 1.0]]
    """
    places = dict.fromkeys(map(tuple, latlon.tolist()))
    return latlon.new_tensor(list(places)).reshape(-1, 2)
