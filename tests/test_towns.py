"""Names of places: the nearest town, everywhere on the sphere, and what has no name."""

import math

import numpy as np
import pytest
import torch

from geoflow import metrics, sphere
from geoflow.data import towns


def points():
    """Unit vectors of all towns."""
    return torch.from_numpy(towns._table()[0].data)


def test_known_places():
    labels = towns.lookup(
        torch.tensor([[48.3904, -4.4861], [-22.5609, 17.0658], [-33.8688, 151.2093], [42.5, 1.5]])
    )
    assert labels["country"].tolist() == ["FR", "NA", "AU", "AD"]
    assert labels["region"].tolist()[:3] == ["Brittany_FR", "Khomas_NA", "New South Wales_AU"]
    assert labels["sub-region"][0] == "Departement du Finistere_Brittany_FR"
    assert labels["city"][0] == "Brest_Departement du Finistere_Brittany_FR"
    assert labels["sub-region"][3] == ""  # GeoNames has none in Andorra
    assert labels["city"][3] != ""
    assert tuple(labels) == towns.LEVELS


@pytest.mark.parametrize(
    ("lat", "lon"), [((-90, 90), (-180, 180)), ((-30, 75), (175, 185)), ((80, 90), (-180, 180))]
)
def test_nearest_is_nearest_on_the_sphere(lat, lon):
    generator = torch.Generator().manual_seed(0)
    low, high = torch.tensor([lat, lon], dtype=torch.float64).T
    latlon = low + (high - low) * torch.rand(100, 2, generator=generator, dtype=torch.float64)
    nearest = torch.stack(
        [sphere.distance(x, points()).argmin() for x in sphere.from_latlon(latlon)]
    )
    at_town = towns.lookup(sphere.to_latlon(points()[nearest]))
    found = towns.lookup(latlon)
    assert all(np.array_equal(found[level], at_town[level]) for level in towns.LEVELS)
    flat = torch.cdist(
        sphere.to_latlon(sphere.from_latlon(latlon)), sphere.to_latlon(points())
    ).argmin(1)
    assert (
        float((flat == nearest).double().mean()) < 0.9
    )  # what the search in degrees would have said


@pytest.mark.parametrize(
    ("lat", "lon", "town", "km"),
    [
        (48.3904, -4.4861, "Brest, Brittany, FR", 0), (-77.8, 166.6, "McMurdo Station, AQ", 6),
        (-75.0, 166.7, "McMurdo Station, AQ", 317), (12.11, 15.05, "N'Djamena, Chari-Baguirmi, TD", 0),
    ],
)  # fmt: skip
def test_nearest_town_comes_with_its_distance(lat, lon, town, km):
    name, far = towns.nearest(torch.tensor([[lat, lon]], dtype=torch.float64))[0]
    x = sphere.from_latlon(torch.tensor([lat, lon], dtype=torch.float64))
    assert far == pytest.approx(float(sphere.distance_km(x, points()).min()), abs=1e-6)
    assert name == town
    assert far == pytest.approx(km, abs=1.5)


@pytest.mark.parametrize(
    ("lat", "lon"),
    [(-38.0, -110.0), (0.0, -140.0), (89.0, 0.0), (-90.0, 0.0), (-45.0, 75.0), (math.nan, 0.0)],
)
def test_no_town_is_named_where_none_is_near(lat, lon):
    ((name, far),) = towns.nearest(torch.tensor([[lat, lon]]))
    assert name == ""
    assert far > 500
    assert towns.name_of(torch.tensor([[lat, lon]])) == [""]


def test_longitudes_wrap():
    turns = [
        towns.lookup(torch.tensor([[-16.8, 180.0 + 360 * turn]], dtype=torch.float64))
        for turn in (0, -1)
    ]
    assert turns[0] == turns[1]
    assert turns[0]["country"] == ["FJ"]


def test_table_is_whole_and_cities_are_towns():
    labels = towns.lookup(sphere.to_latlon(points()))
    n = len(points())
    assert n == 144_327  # 144,563 rows, of which 236 share a point with another
    assert len(set(labels["city"])) == n
    assert not (labels["country"] == "").any()
    missing = metrics.label_accuracy(labels, labels)
    assert [missing[level] for level in towns.LEVELS] == [1, 1, 1, 1]
    assert 0.41 < missing["sub-region_missing"] / n < 0.43
    assert missing["region_missing"] == (labels["region"] == "").sum() < 1000


def test_nan_has_no_labels_and_is_a_miss():
    latlon = torch.tensor([[48.39, -4.49], [math.nan, 0.0]])
    labels = towns.lookup(latlon)
    assert [labels[level][1] for level in towns.LEVELS] == [""] * 4
    scores = metrics.label_accuracy(labels, towns.lookup(latlon[[0, 0]]))
    assert [scores[level] for level in towns.LEVELS] == [0.5] * 4
    assert len(towns.lookup(torch.zeros(0, 2))["city"]) == 0


@pytest.mark.parametrize(
    ("latlon", "message"),
    [
        ([1.0, 2.0], r"expected \(N, 2\)"),
        ([[1.0, 2.0, 3.0]], "expected"),
        ([[95.0, 0.0]], "latitude 95.0"),
    ],
)
def test_bad_places_are_named(latlon, message):
    with pytest.raises(ValueError, match=message):
        towns.lookup(torch.tensor(latlon))
