"""Tables of one's own photos: what has one meaning is read, anything else is one line that names file, line, value and what was expected."""

import bz2
import gzip
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from synthetic import run_here

from geoflow.data import delimited
from geoflow.data.records import read_table

PLACES = [(48.8584, 2.2945), (-33.8568, 151.2153), (0.5, -78.25)]
PATHS = ["eiffel.jpg", "opera.jpg", "quito.jpg"]


def read(folder, content, name="photos.csv"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table(folder / name)


def comma(number):
    return str(number).replace(".", ",")


def lines(header, delimiter, number=str, quote=""):
    rows = [
        delimiter.join([f"{i}", *(f"{quote}{number(x)}{quote}" for x in place), path])
        for i, (place, path) in enumerate(zip(PLACES, PATHS, strict=True))
    ]
    return "\n".join([header, *rows, ""])


PLAIN = lines("id,latitude,longitude,path", ",")
ACCEPTED = {
    "commas": PLAIN,
    "semicolons": lines("id;latitude;longitude;path", ";"),
    "tabs": lines("id\tlatitude\tlongitude\tpath", "\t"),
    "bars": lines("id|latitude|longitude|path", "|"),
    "comma decimals": lines("id;lat;lon;file", ";", comma),
    "comma decimals in quotes": lines("id,lat,lon,file", ",", comma, '"'),
    "comma decimals and tabs": lines("ID\tLat\tLng\tImage", "\t", comma),
    "capitals and spaces": lines(" Id , LATITUDE, Longitude ,  Path", ","),
    "spaces after commas": lines("id, lat, lon, path", ", "),
    "quoted header": lines('"id","lat","lng","file name"', ","),
    "units": lines("key;Latitude (deg);Longitude (°);File_Name", ";"),
    "units of other kinds": lines("id,lat [decimal degrees],lon (WGS84),file (of the photo)", ","),
    "degrees north and east": lines("id,lat (°N),lon (degrees_east),path", ","),
    "excel with tabs": "sep=\t\r\n" + lines("id\tlatitude\tlongitude\tpath", "\t", comma).replace("\n", "\r\n"),
    "GPS names": lines("photo_id,GPS Latitude,GPS Longitude,image path", ","),
    "GBIF names": lines("key,decimalLatitude,decimalLongitude,filename", ","),
    "x and y": "y,x,key,image\n" + "".join(f"{lat},{lon},{i},{path}\n" for i, ((lat, lon), path) in enumerate(zip(PLACES, PATHS, strict=True))),
    "x and y are others": "id,x,y,lat,lon,path\n" + "".join(f"{i},9,9,{lat},{lon},{path}\n" for i, ((lat, lon), path) in enumerate(zip(PLACES, PATHS, strict=True))),
    "other columns": "\n".join(line + ',"a ""comment"",\nof two lines"' for line in PLAIN.splitlines()),
    "excel": "sep=;\r\n" + lines("id;latitude;longitude;path", ";", comma).replace("\n", "\r\n"),
    "windows lines": PLAIN.replace("\n", "\r\n"),
    "old mac lines": PLAIN.replace("\n", "\r"),
    "no last line end": PLAIN[:-1],
    "blank lines": "\n\n" + PLAIN.replace("\n", "\n\n"),
    "trailing commas": PLAIN.replace("\n", ",\n"),
    "trailing commas of rows": PLAIN.replace("jpg\n", "jpg,,\n"),
    "signs": lines("id,lat,lon,path", ",", lambda x: f"{x:+}"),
    "minus": PLAIN.replace("-", "−"),
    "degree signs": lines("id,lat,lon,path", ",", "{}°".format),
    "exponents": lines("id,lat,lon,path", ",", "{:.8e}".format),
    "German": lines("Id;Breitengrad;Längengrad;Datei", ";", comma),
    "German, short": lines("id;Breite;Laenge;Dateiname", ";", comma),
    "Spanish": lines("id;Latitud;Longitud;Archivo", ";", comma),
    "Italian": lines("id,latitudine,longitudine,path", ","),
    "Polish": lines("id,szerokość,długość,path", ","),
    "Danish": lines("id,Breddegrad,Længdegrad,path", ","),
    "Russian": lines("id,Широта,Долгота,path", ","),
    "Chinese": lines("id,纬度,经度,path", ","),
    "abbreviated": lines("id,lat.,lon.,path", ","),
    "of an object": lines("id,geo.lat,geo.lon,path", ","),
    "of coordinates": lines("id,coords_latitude,coords_longitude,path", ","),
    "of WGS 84": lines("id,lat_wgs84,lon_wgs84,path", ","),
    "comments": "# photos of 2024, with their places\n#\n" + PLAIN,
    "a commented header": "#" + PLAIN,
    "sides": lines("id,lat,lon,path", ",").replace("48.8584", "48.8584 N").replace("-33.8568", "33.8568° s").replace("-78.25", "78.25W"),
    "minutes": PLAIN.replace("0.5,-78.25", "0°30′ N,-78°15'"),
    "minutes and seconds": PLAIN.replace("48.8584", "48°51'30.24\"N").replace("151.2153", "151° 12′ 55.08″ E").replace("-33.8568", "33°51'24.48''S"),
    "sides first": lines("id,lat,lon,path", ",").replace("48.8584", "N 48.8584").replace("-33.8568", "s33°51'24.48\"").replace("-78.25", "W78.25"),
    "other signs of degrees": PLAIN.replace("48.8584", "48º51'30.24\"N").replace("151.2153", "151˚12'55.08\"E").replace("-33.8568", "33.8568 deg S"),
    "exiftool": lines("id,GPSLatitude,GPSLongitude,SourceFile", ",").replace("48.8584", '"48 deg 51\' 30.24"" N"').replace("-33.8568", '"33 deg 51\' 24.48"" S"'),
    "sides in columns": "id,lat,NS,lon,EW,path\n0,48.8584,N,2.2945,E,eiffel.jpg\n1,33.8568,s,151.2153,East,opera.jpg\n2,0.5,north,78.25,West,quito.jpg\n",
    "sides of signed degrees": "id,lat,Lat Ref,lon,GPSLongitudeRef,path\n0,48.8584,N,2.2945,E,eiffel.jpg\n1,-33.8568,S,151.2153,E,opera.jpg\n2,0.5,N,-78.25,W.,quito.jpg\n",
    "sides of minutes": "id;GPSLatitude;GPSLatitudeRef;GPSLongitude;GPSLongitudeRef;path\n0;48°51'30.24\";North;2,2945;East;eiffel.jpg\n1;33°51'24.48\";South;151°12'55.08\";East;opera.jpg\n2;0°30';North;78°15';West;quito.jpg\n",
    "empty columns of sides": "id,lat,latitude_ref,lon,lon_dir,path\n0,48.8584,,2.2945,,eiffel.jpg\n1,-33.8568,,151.2153,,opera.jpg\n2,0.5,,-78.25,,quito.jpg\n",
    "a very long value": "\n".join(f"{line},{'x' * 200_000}" for line in PLAIN.splitlines()),
    "0 to 360": PLAIN.replace("-78.25", "281.75"),
}  # fmt: skip
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252")


def found(records):
    rows = records.rows.to_pylist()
    return [(r["id"], round(r["latitude"], 9), round(r["longitude"], 9), r["path"]) for r in rows]


EXPECTED = [(str(i), *place, path) for i, (place, path) in enumerate(zip(PLACES, PATHS, strict=True))]  # fmt: skip


@pytest.mark.parametrize("text", ACCEPTED.values(), ids=ACCEPTED)
def test_what_has_one_meaning_is_read(tmp_path, text):
    assert found(read(tmp_path, text)) == EXPECTED


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress])
def test_encodings(tmp_path, encoding, compress):
    """With letters beyond ASCII, which two encodings write differently."""
    text = PLAIN.replace("eiffel", "Eiffel été °")
    if encoding in ("utf-16-le", "utf-16-be"):  # without a mark
        assert not text.encode(encoding).startswith((b"\xff\xfe", b"\xfe\xff"))
    suffix = {gzip.compress: ".gz", bz2.compress: ".bz2"}.get(compress, "")
    records = read(tmp_path, compress(text.encode(encoding)), f"photos.csv{suffix}")
    assert found(records) == [("0", *PLACES[0], "Eiffel été °.jpg"), *EXPECTED[1:]]
    assert encoding.removesuffix("-sig").replace("utf", "UTF") in records.describe()


def test_what_was_taken_is_told(tmp_path):
    records = read(tmp_path, lines("Key;LAT;lng;File", ";", comma))
    assert records.describe().splitlines() == [
        "photos.csv: UTF-8, semicolons between values; id from 'Key', latitude from 'LAT', longitude from 'lng', path from 'File'",
        "photos.csv: latitudes -33.8568 to 48.8584, longitudes -78.2500 to 151.2153",
    ]
    assert str(records) == "photos.csv: 3 listed; 3 usable"
    wrapped = read(tmp_path, ACCEPTED["0 to 360"]).describe()
    assert "longitudes of 0 to 360 taken as −180 to 180 (the first: 281.75 in line 4)" in wrapped
    assert "longitudes -78.2500 to 151.2153" in wrapped
    nowhere = read(tmp_path, PLAIN.replace("0.5,-78.25", "0,0")).describe()
    assert "1 at (0, 0), which often stands for no place" in nowhere


def test_a_table_without_ids_takes_the_paths(tmp_path):
    records = read(tmp_path, "file,lat,lon\na.jpg,1,2\nb/a.jpg,3,4\n")
    assert found(records) == [("a.jpg", 1, 2, "a.jpg"), ("b/a.jpg", 3, 4, "b/a.jpg")]
    assert "id from 'file'" in records.describe()


def test_a_table_without_paths_says_which_columns_it_has(tmp_path):
    records = read(tmp_path, "ID;Lat;Lng;Anhang;Notiz\na;48,5;2,3;x.jpg;\n")
    assert records.latlon.tolist() == [[48.5, 2.3]]  # enough for points
    with pytest.raises(
        ValueError,
        match=r"photos.csv: no column of path.*expected one called path, file.*not used: 'Anhang', 'Notiz'",
    ):
        records.with_images()


def test_paths_as_windows_writes_them(tmp_path):
    records = read(tmp_path, "id,lat,lon,path\na,1,2,trip\\day 1\\p.jpg\nb,1,2,q.jpg\n")
    assert records.rows["path"].to_pylist() == ["trip/day 1/p.jpg", "q.jpg"]
    assert "backslashes in paths taken as /" in records.describe()
    odd = read(tmp_path, "id,lat,lon,path\na,1,2,a\\b.jpg\nb,1,2,c/q.jpg\n")  # a name of Linux
    assert odd.rows["path"].to_pylist() == ["a\\b.jpg", "c/q.jpg"]


@pytest.mark.parametrize("id_", ["NA", "nan", "NaN", "null", "None", "007", "1e5", "n/a", "true", "-", "日本", "a b"])  # fmt: skip
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_ids_stay_texts(tmp_path, id_, kind):
    if kind == "csv":
        records = read(tmp_path, f"id,lat,lon,path\n{id_},1,2,{id_}\n")
    else:
        table = {"id": [id_], "lat": [1.0], "lon": [2.0], "path": [id_]}
        pa.parquet.write_table(pa.table(table), tmp_path / "a.parquet")
        records = read_table(tmp_path / "a.parquet")
    assert found(records) == [(id_, 1, 2, id_)]


def test_namibia_is_a_country_and_nan_is_none(tmp_path):
    text = "id;lat;lon;Country;CITY\na;1;2;NA;\nb;;2;CL;x\nc;3;4;NaN;NA\nd;nan;NA;CL;\ne;-;#N/A;;\nf;\\N;?;;\n"
    records = read(tmp_path, text)
    assert str(records) == "photos.csv: 6 listed, 4 without coordinates; 2 usable"
    assert records.rows["country"].to_pylist() == ["NA", None]
    assert records.rows["city"].to_pylist() == [None, "NA"]


REFUSED = {
    "two longitudes": ("id,lat,lon,lng,path\na,1,2,3,p\n", 1, "columns 'lon' and 'lng' could each be the longitude"),
    "two latitudes": ("id,Latitude,lat,lon,path\na,1,2,3,p\n", 1, "columns 'Latitude' and 'lat' could each be the latitude"),
    "two paths": ("id,lat,lon,file,image\na,1,2,p,p\n", 1, "columns 'file' and 'image' could each be the path"),
    "the same twice": ("id,id,lat,lon,path\na,1,2,3,p\n", 1, "2 columns are called 'id'; expected one: give the others another name$"),
    "the same twice, and another": ("id,lat,lat,latitude,lon,path\na,1,2,3,4,p\n", 1, "2 columns are called 'lat'; expected one"),
    "header only": ("id,lat,lon,path\n", None, "holds a header and no rows"),
    "header and blanks": ("id,lat,lon,path\n\n \n", None, "holds a header and no rows"),
    "nothing": ("", None, "is empty; expected a header"),
    "blank lines only": ("\n\n", None, "is empty; expected a header"),
    "a side beside which no degrees can be": ("id,lat,latref,lon,path\na,-33,N,2,p\n", 2, "latitude -33 and the side 'N'; expected north or south"),
    "no side": ("id,lat,latref,lon,path\na,33,S,2,p\nb,33,,2,p\n", 3, "latitude 33 and the side ''; expected north or south"),
    "minutes without a side": ("id,lat,latref,lon,path\na,33°51',,2,p\n", 2, "latitude \"33°51'\"; expected decimal degrees"),
    "another side": ("id,lat,lon,longitude_ref,path\na,33,2,O,p\n", 2, "longitude 2 and the side 'O'; expected east or west"),
    "a page of a website": ("<!DOCTYPE html><html>" + "x" * 500, 1, "no column of id; expected .* the columns are '<!DOCTYPE html><html>x{19}'$"),
    "another name of paths": ("name,lat,lon\na,1,2\n", 1, "no column of id; expected one called id, key, imageid, photoid, or of path: path, file, filename, filepath, or --columns path=NAME; the columns"),
    "no header": ("a,48.1,2.2,p.jpg\nb,48.2,2.3,q.jpg\n", 1, "no column of id; expected one called id, key, .*the columns are 'a', '48.1', '2.2', 'p.jpg'"),
    "no latitude": ("id,hoehe,lon,path\na,1,2,p\n", 1, "no column of latitude; expected one called latitude, lat, .*, or --columns latitude=NAME; the columns are 'id', 'hoehe', 'lon', 'path'"),
    "no longitude": ("id;lat;weite;path\na;1;2;p\n", 1, "no column of longitude"),
    "no id and no path": ("lat,lon\n1,2\n", 1, "no column of id"),
    "empty path": ("id,lat,lon,path\na,1,2,p\nb,3,4,\n", 3, "no path"),
    "empty id": ("id,lat,lon,path\na,1,2,p\n  ,3,4,q\n", 3, "no id"),
    "latitude beyond the pole": ("id,lat,lon,path\na,90.0001,2,p\n", 2, "latitude 90.0001; expected −90 to 90"),
    "swapped": ("id,lat,lon,path\na,1,2,p\nb,151.2,-33.9,p\n", 3, "latitude 151.2; .*are latitude and longitude swapped"),
    "metres": ("id,y,x,path\na,5411952,253434,p\n", 2, "latitude 5411952; .*are these degrees"),
    "longitude beyond 360": ("id,lat,lon,path\na,1,361,p\n", 2, "longitude 361; expected −180 to 180"),
    "0 to 360 with negatives": ("id,lat,lon,path\na,1,-5,p\nb,1,300,q\n", 3, "longitude 300; expected −180 to 180"),
    "a hair beyond the pole": ("id,lat,lon,path\na,90.0000001,2,p\n", 2, "latitude 90.0000001; expected −90 to 90"),
    "radians": ("id,lat (rad),lon (rad),path\na,0.5,1,p\n", 1, r"no column of latitude; .*the columns are 'id', 'lat \(rad\)'"),
    "metres in brackets": ("id,y [m],x [m],path\na,0.5,1,p\n", 1, "no column of latitude"),
    "one axis in radians": ("id,lat (deg),lon [radians],path\na,0.5,1,p\n", 1, "no column of longitude"),
    "parts of degrees, and minutes": ("id,lat,lon,path\na,48.9°51'24\"N,2,p\n", 2, "latitude .48.9°51.*; expected decimal degrees"),
    "parts of minutes, and seconds": ("id,lat,lon,path\na,48°51.4'24\"N,2,p\n", 2, "latitude .48°51.4.*; expected decimal degrees"),
    "parts of degrees with a comma, and minutes": ("id;lat;lon;path\na;1;2,5°30'E;p\n", 2, "longitude .2,5°30.*; expected decimal degrees"),
    "infinite": ("id,lat,lon,path\na,inf,2,p\n", 2, "latitude 'inf'; expected decimal degrees"),
    "huge": ("id,lat,lon,path\na,1e999,2,p\n", 2, "latitude 1e999; expected −90 to 90"),
    "huge, and a side": ("id,lat,latref,lon,path\na,1e999,x,2,p\n", 2, "latitude 1e999 and the side 'x'; expected north or south"),
    "beyond the pole, in minutes": ("id,lat,lon,path\na,90°30'N,2,p\n", 2, "latitude 90°30'N; expected −90 to 90"),
    "a side of the other": ("id,lat,lon,path\na,1,2,p\nb,48°51'24\"E,2,q\n", 3, ".*48°51.*E'; expected decimal degrees"),
    "an east that may be a west": ("id,lat,lon,path\na,1,2,p\nb,1,2°30'O,q\n", 3, "longitude \"2°30'O\"; expected decimal degrees such as −33.86, or 33°51′36″W"),
    "a sign and a side": ("id,lat,lon,path\na,1,2,p\nb,-33°S,2,q\n", 3, "latitude '-33°S'; expected"),
    "sixty minutes": ("id,lat,lon,path\na,1,2,p\nb,33°60'S,2,q\n", 3, "latitude \"33°60'S\"; expected"),
    "spaced parts": ("id,lat,lon,path\na,1,2,p\nb,48 51 24,2,q\n", 3, "latitude '48 51 24'; expected"),
    "a code": ("id,lat,lon,path\na,1,2,p\nb,8FVC9G8F+6X,2,q\n", 3, "latitude '8FVC9G8F\\+6X'; expected"),
    "words": ("id,lat,lon,path\na,1,2,p\nb,north,2,q\n", 3, "latitude 'north'; expected decimal degrees such as −33.86, or 33°51′36″S"),
    "minutes": ("id,lat,lon,path\na,48°51',2,p\n", 2, "latitude \"48°51'\"; expected decimal degrees"),
    "underscores": ("id,lat,lon,path\na,1_0,2,p\n", 2, "latitude '1_0'; expected decimal degrees"),
    "thousands": ("id;lat;lon;path\na;1.234,5;2;p\n", 2, "latitude '1.234,5'; expected decimal degrees"),
    "same id": ("id,lat,lon,path\na,1,2,p\nb,1,2,q\na,3,4,r\n", 4, "id 'a' is also in line 2; expected another"),
    "ragged, fewer": ("id,lat,lon,path\na,1,2,p\nb,1,2\n", 3, "3 values in 'b,1,2'; expected 4, as the header has$"),
    "ragged, more": ("id,lat,lon,path\na,1,2,p,5\n", 2, "5 values in .*; expected 4"),
    "comma decimals between commas": ("id,lat,lon,path\na,48,85,2,35,p\n", 2, r"6 values in .*expected 4.*a value that holds a comma must be quoted"),
    "ragged after two lines in one value": ('id,lat,lon,path,c\na,1,2,p,"x\ny"\nb,1,2\n', 4, "3 values in 'b,1,2'; expected 5"),
    "quotes open to the end": ('id,lat,lon,path\na,1,2,p\n"b,1,2,q\nc,1,2,r\n', 3, "a quoted value is not closed"),
    "quotes open to the next": ('id,lat,lon,path\na,1,2,"p\nb,1,2,"q"\n', 2, "a quoted value is not closed"),
    "NUL": ("id,lat,lon,path\na,1,2,p\nb\0c,1,2,q\n", 3, "a NUL character"),
    "control characters": ("id,lat,lon,path\na\x01b,1,2,p\n", 2, r"id 'a\\x01b'; expected a text without control"),
    "line end in a path": ('id,lat,lon,path\na,1,2,"p\nq"\n', 2, r"path 'p\\nq'; expected a text without control"),
    "compressed": (gzip.compress(PLAIN.encode()), None, "is a spreadsheet or an archive, not a text; save it as CSV"),
    "a spreadsheet": (b"PK\x03\x04\x14\x00" + bytes(60), None, "is a spreadsheet or an archive, not a text; save it as CSV"),
    "damaged UTF-8": ("id,lat,lon,path\né,1,2,p\n".encode() + b"\xff,1,2,q\n", 3, "byte 0xff is not utf-8"),
    "no cp1252": (b"id,lat,lon,path\na\x81,1,2,p\n", 2, "byte 0x81 is not cp1252"),
    "half a character": ("id,lat,lon,path\na,1,2,p\n".encode("utf-16")[:-1], None, "is not utf-16"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "line", "match"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_meaning_is_one_line_with_file_line_and_value(tmp_path, content, line, match):
    where = re.escape(str(tmp_path / "photos.csv")) + (f", line {line}: " if line else ".*")
    with pytest.raises(ValueError, match=where + match) as error:
        read(tmp_path, content)
    assert "\n" not in str(error.value)


LONG = "x" * 100_000


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (f"id,lat,lon,path\na,{LONG},2,p\n", "latitude 'x{79}…'; expected decimal"), (f"id,lat,lon,path\na,{'9' * 100_000},2,p\n", "latitude 9{79}…; expected −90"),
        (f"id,lat,lon,path\n{LONG},1,2,p\n{LONG},1,2,q\n", "id 'x{79}…' is also in line 2"), (f"id,lat,lon,path\na,1,2,{LONG}\x01\n", "path 'x{79}…'; expected a text"),
        (f"id,lat,latref,lon,path\na,1,{LONG},2,p\n", "latitude 1 and the side 'x{79}…'; expected"), (f"id,lat,lon,path\na,1,{LONG}\n", "3 values in 'a,1,x{75}…'; expected 4"),
        (f"id,lat,lon,path,lat{'_' * 100_000}\n", "columns 'lat' and 'lat_{76}…' could each be"), (f"id,lat,lon{' (' + LONG}\n", "no column of longitude"),
    ],
)  # fmt: skip
def test_long_values_are_cut(tmp_path, content, match):
    with pytest.raises(ValueError, match=match) as error:
        read(tmp_path, content)
    assert len(str(error.value)) < 500


def test_long_names_and_paths_are_cut_in_notes(tmp_path):
    (tmp_path / "b.jpg").write_bytes(b"")
    found = read(tmp_path, f"path,lat,lon,{LONG}\n{LONG},1,2,3\nb.jpg,1,2,3\n").with_images()
    assert f"not used: '{'x' * 79}…'" in found.describe()
    assert f"1 missing: {'x' * 79}…" in found.describe()
    assert len(found.describe()) < 500


@pytest.mark.parametrize("given", [None, {"latitude": "lat"}])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_of_columns_of_one_name_none_can_be_chosen(tmp_path, kind, given):
    names = ["id", "lat", "lat", "lon"]
    if kind == "csv":
        (tmp_path / "a.csv").write_text(",".join(names) + "\n1,2,3,4\n", encoding="utf-8")
    else:
        table = pa.Table.from_arrays([pa.array([number]) for number in range(4)], names)
        pa.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(
        ValueError, match=rf"a\.{kind}.*: 2 columns are called 'lat'; expected one:"
    ):
        read_table(tmp_path / f"a.{kind}", columns=given)


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"id": ["a", "a"]}, "row 2: id 'a' is also in row 1"), ({"id": ["a", None]}, "row 2: no id"), ({"path": ["p", ""]}, "row 2: no path"),
        ({"id": ["a", "b\0"]}, r"row 2: id 'b\\x00'"), ({"lat": [1.0, 91.0]}, "row 2: latitude 91"), ({"lat": ["1", "north"]}, "row 2: latitude 'north'"),
        ({"lng": [1.0, 2.0]}, "'lon' and 'lng' could each"), ({"lat": [[1.0], [2.0]]}, "column 'lat' holds list<element: double>; expected degrees$"),
        ({"id": [[1], [2]]}, "column 'id' holds list<element: int64>; expected texts$"), ({"id": [{"a": 1}, None]}, "column 'id' holds struct<a: int64>; expected texts$"),
        ({"id": [b"a", b"\xff"]}, "column 'id' holds binary that is not UTF-8; expected texts$"), ({"lon": [b"1", b"\xff"]}, "column 'lon' holds binary that is not UTF-8; expected degrees$"),
        ({"path": pa.array([b"p", b"\xff"]).view(pa.string())}, "column 'path' holds string that is not UTF-8; expected texts$"), ({"country": [["NA"], []]}, "column 'country' holds list"),
        ({"id": pa.array([dict.fromkeys(map(str, range(99)), 1)] * 2)}, "column 'id' holds struct<.{72}…; expected texts$"),
    ],
)  # fmt: skip
def test_parquet_is_checked_the_same_way(tmp_path, columns, match):
    whole = {"id": ["a", "b"], "lat": [1.0, 2.0], "lon": [3.0, 4.0], "path": ["p", "q"]}
    pa.parquet.write_table(pa.table(whole | columns), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=rf"a\.parquet.*{match}") as error:
        read_table(tmp_path / "a.parquet")
    assert "\n" not in str(error.value)


def test_parquet_of_numbers_and_categories(tmp_path):
    table = pa.table({
        "Key": [7, 8], "LAT": pa.array([1.5, None], pa.float32()), "Lng": pa.array([200, 20], pa.int32()),
        "file": pa.array(["p", "q"]).dictionary_encode(), "country": ["NA", None],
    })  # fmt: skip
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    records = read_table(tmp_path / "a.parquet")
    assert found(records) == [("7", 1.5, -160, "p")]
    assert records.rows["country"].to_pylist() == ["NA"]


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("suffix", ["csv.gz", "csv.bz2", "parquet"])
def test_a_cut_or_spoilt_file_is_one_line_that_names_it(tmp_path, suffix, seed):
    """Of texts every flipped bit is noticed; Parquet has checksums only if its writer was asked for them, as here."""
    rng = np.random.default_rng(seed)
    file = tmp_path / f"photos.{suffix}"
    rows = [f"{i},{x:.4f},{y:.4f},{i}.jpg\n" for i, (x, y) in enumerate(rng.uniform(-80, 80, (500, 2)))]  # fmt: skip
    text = "id,lat,lon,path\n" + "".join(rows)
    if suffix == "parquet":
        names, *cells = [line.split(",") for line in text.splitlines()]
        table = pa.table(dict(zip(names, map(list, zip(*cells, strict=True)), strict=True)))
        pa.parquet.write_table(table, file, write_page_checksum=True)
    else:
        pack = {"csv.gz": gzip.compress, "csv.bz2": bz2.compress}[suffix]
        file.write_bytes(pack(text.encode()))
    whole, good = file.read_bytes(), found(read_table(file))
    cut = whole[: int(rng.integers(len(whole)))]
    flipped = bytearray(whole)
    flipped[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
    for spoilt in (cut, flipped):
        file.write_bytes(spoilt)
        said = ""
        try:
            assert found(read_table(file)) == good
        except ValueError as error:
            said = str(error)
        assert not said or (str(file) in said and "\n" not in said)


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress)])
def test_files_of_several_streams_are_read_whole(tmp_path, suffix, pack):
    """As parallel packers write them; the beginning of the second is spoilt."""
    first, second = pack(PLAIN[:60].encode()), pack(PLAIN[60:].encode())
    assert found(read(tmp_path, first + second, f"photos.csv.{suffix}")) == EXPECTED
    spoilt = first + b"?" + second[1:]
    with pytest.raises(ValueError, match="is damaged: it cannot be decompressed"):
        read(tmp_path, spoilt, f"photos.csv.{suffix}")


def test_names_do_not_overlap():
    names = [name for names in delimited.NAMES.values() for name in names]
    assert len(names) == len(set(names))


def test_columns_that_the_user_states(tmp_path):
    """They decide between two, name what nobody would guess, and must be there."""
    text = "nr,lat,lat_old,WGS_X,Bild 1,Bild 2\n7,1,2,3,a.jpg,b.jpg\n"
    given = {"latitude": "lat_old", "longitude": "WGS_X", "path": "Bild 2", "id": "nr"}
    file = tmp_path / "photos.csv"
    file.write_text(text, encoding="utf-8")
    assert found(read_table(file, columns=given)) == [("7", 2, 3, "b.jpg")]
    pa.parquet.write_table(
        pa.table({name: ["1"] for name in text.split("\n")[0].split(",")}), tmp_path / "t.parquet"
    )
    assert found(read_table(tmp_path / "t.parquet", columns=given)) == [("1", 1, 1, "1")]
    for wrong, message in {
        "latitude=Breite": "--columns latitude=Breite: expected one such column; the columns are 'nr', 'lat', 'lat_old', 'WGS_X'",
        "id=nr latitude=WGS_X longitude=WGS_X": "'WGS_X' is both latitude and longitude",
        "breite=lat": "unknown name of ours in --columns 'breite'",
        "latitude": "--columns latitude; expected for example latitude=NAME",
    }.items():
        with pytest.raises(ValueError, match=re.escape(message)):
            run_here(
                f"embed {file} --encoder tiles --out {tmp_path}/out --columns {wrong.replace(' ', ' --columns ')}"
            )
    with pytest.raises(ValueError, match="--columns is for tables; .* is not one"):
        run_here(f"embed {tmp_path} --encoder tiles --out {tmp_path}/out --columns id=x")
