"""Earth events: the published files are read whole, others are refused. The files are looked for beside the repository, and in the cache."""

import shutil
from pathlib import Path

import pytest
import torch

from geoflow.data import earth_events

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "earth"


@pytest.fixture
def root():
    for folder in (BESIDE, earth_events.default_root()):
        if (folder / "fire.csv").is_file():
            return folder
    pytest.skip("the files of the earth events are not here: geoflow data fetch earth-events")


@pytest.mark.parametrize("name", earth_events.SOURCES)
def test_every_event_is_read(root, name):
    latlon = earth_events.load(name, root)
    assert latlon.shape == (earth_events.SOURCES[name].events, 2)
    assert latlon.dtype == torch.float64
    assert float(latlon[:, 0].abs().max()) <= 90


def test_the_first_events_are_where_the_files_say(root):
    assert earth_events.load("volcano", root)[0].tolist() == [-30.2, -178.47]
    assert earth_events.load("fire", root)[0].tolist() == [-25.088, 152.358]


def test_a_changed_file_is_refused(root, tmp_path):
    shutil.copyfile(root / "flood.csv", tmp_path / "flood.csv")
    with (tmp_path / "flood.csv").open("a") as file:
        file.write("\n1,2\n")
    with pytest.raises(
        ValueError, match=r"flood\.csv is not the published file: 4876 events, expected 4875"
    ):
        earth_events.load("flood", tmp_path)


def test_what_is_missing_says_how_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="geoflow data fetch earth-events"):
        earth_events.load("fire", tmp_path)
    with pytest.raises(ValueError, match="did you mean 'flood'"):
        earth_events.load("floods", tmp_path)


def test_malformed_rows_are_counted_and_the_first_is_named(tmp_path):
    (tmp_path / "x.csv").write_text("# a comment\nLatitude,Longitude\n1,2\n3\n91,0\nnan,1\n4,5\n")
    with pytest.raises(
        ValueError, match="3 rows hold no latitude, longitude in degrees; the first is line 4, '3'"
    ):
        earth_events.read(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_text("# a comment\nlat,long\n1,2\n")
    assert earth_events.read(tmp_path / "x.csv").tolist() == [[1, 2]]


def test_splits_are_disjoint_complete_and_differ_by_seed():
    latlon = torch.arange(0, 46, dtype=torch.float64)[:, None].expand(-1, 2)
    train, validation, test = earth_events.split(latlon, 0)
    assert (len(train), len(validation), len(test)) == (38, 4, 4)
    assert torch.equal(torch.cat([train, validation, test])[:, 0].sort().values, latlon[:, 0])
    assert not torch.equal(earth_events.split(latlon, 1)[2], test)
    assert torch.equal(earth_events.split(latlon, 0)[2], test)
    with pytest.raises(ValueError, match="9 events to split"):
        earth_events.split(latlon[:9], 0)


def test_distinct_places_keep_their_order():
    latlon = torch.tensor([[3.0, 1], [1, 1], [3, 1], [0, 2], [1, 1], [1, 2]])
    assert earth_events.distinct(latlon).tolist() == [[3, 1], [1, 1], [0, 2], [1, 2]]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"\xff\xfe1\x00", "is damaged or no CSV"), (b"lat,lon\n1,2,3\n", "line 2, '1,2,3'"), (b"1,nan\n", "line 1"), (b"1,inf\n", "line 1"), (b"91,0\n", "line 1, '91,0'"),
        (b"1,2\nnorth,3\n", "1 rows hold no latitude, longitude in degrees; the first is line 2, 'north,3'"), (b'"' + b"x" * 200_000, "is damaged or no CSV"), (b"1,2\n\0,3\n", "a.csv"),
    ],
)  # fmt: skip
def test_damaged_files_are_named(tmp_path, content, match):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ValueError, match=match) as error:
        earth_events.read(tmp_path / "a.csv")
    assert str(tmp_path / "a.csv") in str(error.value)


def test_a_byte_order_mark_is_no_row(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbflat,lon\n1,2\n")
    assert earth_events.read(tmp_path / "a.csv").tolist() == [[1.0, 2.0]]
