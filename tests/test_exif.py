"""EXIF blocks: where the camera was, in every form that programs write; what cannot be told is no place, and it is said why."""

import io

import forged
import pytest
from forged import GPS, LAT, STATUS, gps, rationals, text
from PIL import Image

from geoflow.data import exif

EIFFEL, OPERA, RIO = (48.8584, 2.2945), (-33.8568, 151.2153), (-22.9519, -43.2105)


def place(block, fields=None):
    with Image.open(io.BytesIO(forged.jpeg(forged.exif(fields or {}, gps=block)))) as image:
        return exif.place(image)


def parts(value):
    minutes = abs(value) % 1 * 60
    return int(abs(value)), int(minutes), minutes % 1 * 60


@pytest.mark.parametrize(("lat", "lon"), [EIFFEL, OPERA, RIO])
def test_the_camera_says_where_it_was(lat, lon):
    found, why = place(gps(parts(lat), "NS"[lat < 0], parts(lon), "EW"[lon < 0]))
    assert found == pytest.approx((lat, lon), abs=1e-5)
    assert why == ""


@pytest.mark.parametrize(
    "south",
    [
        *("S", "s", "S ", " s", "South", "SOUTH ", "south\0", "S\0\0\0junk", "S."),
        *((forged.BYTE, b"S\0"), (forged.UNDEFINED, b"South"), (forged.BYTE, b"s")),
    ],
)
@pytest.mark.parametrize("west", ["W", "w ", "West", "WEST", (forged.UNDEFINED, b"west\0")])
def test_south_and_west_in_every_form(south, west):
    assert place(gps((33, 51, 24.48), south, (151, 12, 55.08), west))[0] == pytest.approx(
        (-33.8568, -151.2153)
    )


@pytest.mark.parametrize(
    ("north", "east"),
    [("N", "E"), ("north", "east"), (" n ", "EAST\0"), ((forged.BYTE, b"N"), (forged.BYTE, b"e"))],
)
def test_north_and_east_in_every_form(north, east):
    assert place(gps(north=north, east=east))[0] == pytest.approx(EIFFEL, abs=1e-4)


@pytest.mark.parametrize(
    "side",
    [
        None,
        "",
        " ",
        "X",
        "None",
        "N/A",
        "Nowhere",
        "E",
        "-",
        "0",
        (forged.SHORT, b"\x53\0"),
        (forged.BYTE, b"\0\0"),
    ],
)
def test_a_side_that_cannot_be_told_is_no_place(side):
    found, why = place(gps(north=side))
    assert found is None
    assert "latitude" in why and "expected north or south" in why


@pytest.mark.parametrize("side", [None, "", "O", "Ost", "N", "ouest"])
def test_o_is_west_in_french_and_east_in_german(side):
    found, why = place(gps(east=side))
    assert found is None
    assert "longitude" in why and "expected east or west" in why


@pytest.mark.parametrize(
    "lat",
    [
        (48.8584,), (48, 51.504), (48, 51, 30.24), ((488584, 10000), (0, 1), (0, 1)), ((48, 1), (51504, 1000), (0, 1)), ((48, 1), (51, 1), (3024, 100)),
        text("48.8584"), rationals(48.8584, kind=forged.SRATIONAL),
    ],
)  # fmt: skip
def test_degrees_in_every_form(lat):
    assert place(gps(lat))[0] == pytest.approx(EIFFEL, abs=1e-4)


def test_the_edges_of_the_earth():
    assert place(gps((90, 0, 0), "S", (180, 0, 0), "W"))[0] == (-90, -180)
    assert place(gps((0, 0, 0), "N", (0, 0, 1), "W"))[0] == pytest.approx((0, -1 / 3600))
    assert place(gps((59, 59, 60), "N", (0, 60, 0), "W"))[0] == (60, -1)


@pytest.mark.parametrize(
    "lat",
    [
        rationals(90, 0, 1), rationals(48, 61, 0), rationals(48, 0, 60.01), rationals((48, 0), 51, 30), rationals(48, (51, 0), 30), rationals(48, 51, (0, 0)),
        rationals((1, 0)), rationals(48.5, 51, 0), rationals(48, 51.5, 30), rationals(1, 2, 3, 4), rationals(-48, 51, 30, kind=forged.SRATIONAL),
        rationals((-48, 1), (-51, 1), (-30, 1), kind=forged.SRATIONAL), text("48,8584"), text("48 51 30"), text("north"), text("nan"), text("inf"), (forged.BYTE, b"\x30"), (forged.UNDEFINED, b"48"),
        text(""), (forged.RATIONAL, b""), (forged.RATIONAL, b"\0" * 12), (forged.UNDEFINED, b"\xff\xfe\0\1"),
    ],
)  # fmt: skip
def test_what_is_no_latitude_is_no_place(lat):
    found, why = place(gps() | {LAT: lat})
    assert found is None
    assert "latitude" in why or "damaged" in why


@pytest.mark.parametrize(
    "lat", [rationals(*[(0, 0)] * 3), rationals((5, 0), 0, 0), rationals(48, 51, (0, 0)), rationals((0, 0)), rationals(48, (0, 0), 30, kind=forged.SRATIONAL)]
)  # fmt: skip
def test_parts_without_a_value_are_no_place(lat):
    why = "its EXIF data have no latitude: a part of it is no number, or 0/0"
    assert place(gps() | {LAT: lat}) == (None, why)


def test_signed_degrees_count_where_the_side_agrees():
    lat = rationals(-33.8568, kind=forged.SRATIONAL)
    assert place(gps(north="S") | {LAT: lat})[0] == pytest.approx((-33.8568, 2.2945))
    found, why = place(gps(north="N") | {LAT: lat})
    assert found is None
    assert "contradict each other" in why


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, None),
        ({"status": "V"}, None),
        ({"status": "A"}, (0, 0)),
        ({"mode": "3"}, (0, 0)),
        ({"mode": "0"}, None),
    ],
)
def test_null_island_needs_a_fix(more, expected):
    found, why = place(gps((0, 0, 0), "N", (0, 0, 0), "E", **more))
    assert found == expected
    assert bool(why) == (expected is None)


@pytest.mark.parametrize("status", ["V", "v", "V ", "Void"])
def test_without_a_fix_there_is_no_place(status):
    found, why = place(gps(status=status))
    assert found is None
    assert "no fix" in why
    assert place(gps(status="A"))[0] == pytest.approx(EIFFEL, abs=1e-4)


@pytest.mark.parametrize("missing", [forged.LAT, forged.LON])
def test_half_a_place_is_none(missing):
    block = gps()
    del block[missing]
    found, why = place(block)
    assert found is None
    assert "have no l" in why


def test_without_a_block_there_is_no_place():
    with Image.open(io.BytesIO(forged.jpeg())) as image:
        assert exif.place(image) == (None, "its EXIF data have no place")
    assert place({})[0] is None


@pytest.mark.parametrize(
    "block",
    [
        b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\x7f", forged.exif({}, gps=gps())[:60],
        forged.exif({GPS: (forged.LONG, b"\xff\xff\xff\x7f")}), forged.exif({GPS: text("nowhere")}), forged.exif({GPS: (forged.LONG, b"\x08\0\0\0")}),
        forged.exif({GPS: rationals(1)}), forged.exif({}, gps={LAT: (forged.RATIONAL, b"\0" * 24), STATUS: rationals(1)}),
    ],
)  # fmt: skip
def test_damaged_blocks_are_no_place(block):
    with Image.open(io.BytesIO(forged.jpeg(block))) as image:
        found, why = exif.place(image)
        assert found is None
        assert why.startswith("its EXIF data")
        exif.camera(image)  # says something or nothing


@pytest.mark.parametrize(
    ("fields", "blocks", "expected"),
    [
        ({}, {}, ""),
        ({forged.ORIENTATION: forged.short(1)}, {}, ""),
        ({forged.MAKE: text("Canon"), forged.MODEL: text("EOS 5D\0\0")}, {}, "Canon Eos 5D"),
        ({forged.MAKE: (forged.UNDEFINED, b"Apple")}, {}, "Apple"),
        ({}, {"exif": {forged.EXPOSURE_TIME: rationals((1, 250))}}, "unnamed"),
    ],
)
def test_the_camera_is_named(fields, blocks, expected):
    with Image.open(io.BytesIO(forged.jpeg(forged.exif(fields, **blocks)))) as image:
        assert exif.camera(image) == expected


@pytest.mark.parametrize(
    "block",
    [gps(north="N" * 50_000), gps(east="E" * 50_000), gps(north="N" + "\0" * 50_000) | {LAT: rationals(-48.5, kind=forged.SRATIONAL)}, gps() | {LAT: text("4" * 50_000)}],
)  # fmt: skip
def test_what_is_said_of_a_long_field_is_short(block):
    found, why = place(block)
    assert found is None
    assert len(why) < 300 and "\n" not in why
