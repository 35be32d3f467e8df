"""Tables of located photos as people and programs write them: CSV, TSV and the like.

What has one meaning is accepted: commas, semicolons, tabs or bars between the values; UTF-8, UTF-16
or cp1252; the usual names of columns, in any capitals and several languages, or those that the user
states; commas as decimal points; degrees, minutes and seconds; sides (north, W) in the value or in
a column of their own. Anything else is a `ValueError` of one line that names the file, the line,
the value, and what was expected.
"""

import bz2
import codecs
import csv
import gzip
import io
import itertools
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from geoflow import runtime
from geoflow.data.exif import EAST_WEST, NORTH_SOUTH
from geoflow.data.towns import LEVELS
from geoflow.data.typed import brief

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
SIDE = ("ref", "reference", "direction", "dir", "hemisphere", "hem", "side")
NAMES = {  # our name → names that mean the same, in small letters and digits without accents
    "id": ("id", "key", "imageid", "photoid"),
    "latitude": (
        *("latitude", "lat", "latitud", "latitudine", "breite", "breitengrad", "breedtegraad"),
        *("breddegrad", "breddgrad", "szerokosc", "enlem", "широта", "纬度", "緯度"),
    ),
    "longitude": (
        *("longitude", "lon", "lng", "long", "longitud", "longitudine", "lange", "langengrad"),
        *("laenge", "laengengrad", "lengtegraad", "lengdegrad", "længdegrad", "langdgrad"),
        *("dlugosc", "boylam", "долгота", "经度", "経度", "經度"),
    ),
    "north_south": ("ns", *(f"{lat}{kind}" for lat in ("latitude", "lat") for kind in SIDE)),
    "east_west": ("ew", *(f"{lon}{kind}" for lon in ("longitude", "lon", "lng") for kind in SIDE)),
    "path": (
        *("path", "file", "filename", "filepath", "image", "imagepath", "imagefile", "photo"),
        *("sourcefile",),
        *("datei", "dateiname", "pfad", "bild", "fichier", "archivo", "fichero", "bestand"),
    ),
    **{level: (level.replace("-", ""),) for level in LEVELS},
}
AFFIXES = r"^(geo|gps|location|position|coordinates?|coords?|decimal|exif)+|(deg|degrees?|wgs84)$"
AXES = {"latitude": "y", "longitude": "x"}  # where no other column is meant
DEGREES = r"([\W_º]|dd|dms|deg|degrees?|decimals?|wgs84|epsg|4326|84|wgs|north|east|[nsew])*"
COORDINATES = {"latitude": 90, "longitude": 180}
SIDES = {"latitude": ("north_south", NORTH_SOUTH), "longitude": ("east_west", EAST_WEST)}
# Missing numbers; "NA" as an id or a country is a value.
MISSING = ("", "nan", "na", "n/a", "#n/a", "<na>", "null", "none", "nil", r"\n", "-", "?")
NUMBER = r"([0-9]+(?:[.,][0-9]*)?)"
ANGLE = re.compile(  # 48°51'24"N, 48° 51.4′ N, 48.8566 N, -48°51'
    rf"([+-]?){NUMBER}\s*°?(?:(?<=°)\s*{NUMBER}\s*['′’](?:\s*{NUMBER}\s*(?:[\"″”]|''))?)?\s*([NSEW]?)",
    re.IGNORECASE,
)
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # UTF-32 before UTF-16, whose mark is the beginning of UTF-32's
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# How a spreadsheet begins (zip, Office of 1997), and a file of gzip, xz or zstd
NO_TEXTS = (b"PK\3\4", b"\xd0\xcf\x11\xe0", b"\x1f\x8b", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")


@dataclass(frozen=True)
class Columns:
    """A table, column by column."""

    values: dict[str, list]  # our name → values; those of numbers and labels may be None
    at: Callable[[int], str]  # number of a row → its place in the file, in words
    notes: tuple[str, ...]  # how it was read


def read(file: Path, given: dict[str, str] | None = None) -> Columns:
    """A delimited text file with a header, perhaps compressed (.gz, .bz2).

    Args:
        given: our name → name of the column that is meant, where it is not a usual one.
    """
    text, encoding = _decoded(file)
    lines = io.StringIO(text, newline="")
    skipped = _skip_to_header(lines)
    start, first = lines.tell(), lines.readline()
    lines.seek(start)
    delimiter = max(DELIMITERS, key=lambda each: _known(first, each, given))
    numbers, rows = _rows(file, lines, delimiter, skipped)
    if not rows:
        raise ValueError(f"{file} is empty; expected a header such as id,latitude,longitude,path")
    header, rows, line_of = rows[0], rows[1:], numbers[1:]
    found = columns_of(f"{file}, line {numbers[0]}", header, given)
    if not rows:
        raise ValueError(f"{file} holds a header and no rows")

    def at(row: int) -> str:
        return f"{file}, line {line_of[row]}"

    for number, row in enumerate(rows):
        if len(row) < len(header) or any(map(str.strip, row[len(header) :])):
            found_here = brief(delimiter.join(row))
            wrong = f"{at(number)}: {runtime.count(len(row), 'value')} in {found_here!r}"
            more = delimiter == "," and len(row) > len(header)
            hint = " (a value that holds a comma must be quoted)" if more else ""
            raise ValueError(f"{wrong}; expected {len(header)}, as the header has{hint}")
    values = {name: [row[i].strip() for row in rows] for name, i in found.items()}
    notes = (f"{encoding}, {DELIMITERS[delimiter]} between values", names_in(header, found))
    return checked(Columns(values, at, notes))


def _decoded(file: Path) -> tuple[str, str]:
    """The text of a file, and its encoding: by its mark, else UTF-8, else cp1252."""
    content = file.read_bytes()
    try:
        unpack = {".gz": gzip.decompress, ".bz2": _unpack_bz2}.get(file.suffix.lower(), bytes)
        content = unpack(content)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ValueError(f"{file} is damaged: it cannot be decompressed ({error})") from error
    if content.startswith(NO_TEXTS):
        raise ValueError(f"{file} is a spreadsheet or an archive, not a text; save it as CSV")
    marks = (name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark))
    encoding = next(marks, "") or _unmarked(content)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        wrong = f"byte {content[error.start]:#04x} is not {encoding}"
        raise ValueError(f"{file}, line {line}: {wrong}; save the table as UTF-8") from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(f"{file}, line {line}: a NUL character; the file is damaged or not a text")
    return text, encoding.replace("utf", "UTF").removesuffix("-sig")


def _unpack_bz2(content: bytes) -> bytes:
    """All streams of a bzip2 file; `bz2.decompress` drops a second one that begins damaged."""
    parts = []
    while content:
        stream = bz2.BZ2Decompressor()
        parts.append(stream.decompress(content))
        if not stream.eof:
            raise EOFError("it ends too early")
        content = stream.unused_data
    return b"".join(parts)


def _unmarked(content: bytes) -> str:
    """The encoding of a text without a byte order mark."""
    head = content[:200]
    for encoding, zeros in (("utf-16-le", head[1::2]), ("utf-16-be", head[::2])):
        if 2 * zeros.count(0) > len(zeros):
            return encoding
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:  # after other UTF-8 signs: damage, not cp1252
        return "cp1252" if content[: error.start].isascii() else "utf-8"
    return "utf-8"


def _skip_to_header(lines: io.StringIO) -> int:
    """Move on to the header, past blank lines, a spreadsheet's `sep=;` and comments (#) without
    the names of two columns: lines passed.
    """
    passed = 0
    while True:
        at, line = lines.tell(), lines.readline()
        blank = bool(line) and not line.strip()
        comment = line.startswith("#") and max(_known(line, each)[0] for each in DELIMITERS) < 2
        if not blank and not comment and not re.fullmatch(r"sep=.\s*", line, re.IGNORECASE):
            lines.seek(at)
            return passed
        passed += 1


def _known(line: str, delimiter: str, given: dict[str, str] | None = None) -> tuple[int, int]:
    """How many cells of a header are names that we know, and how many cells it has."""
    cells = line.split(delimiter)
    names = {
        *AXES.values(),
        *itertools.chain(*NAMES.values()),
        *map(_plain, (given or {}).values()),
    }
    return sum(_plain(cell) in names for cell in cells), len(cells)


def _plain(name: str) -> str:
    """A column's name without capitals, accents, spaces, signs and a unit; of a coordinate, without
    what it belongs to.

    >>> [_plain(name) for name in (" GPS-Latitude (deg)", "Länge", "geo.lat", "image_id")]
    ['latitude', 'lange', 'lat', 'imageid']
    """
    name, _, unit = name.replace("[", "(").partition("(")
    name = unicodedata.normalize("NFKD", name.casefold())
    name = re.sub(r"[\W_]", "", name.replace("ł", "l"))
    bare = re.sub(AFFIXES, "", name)
    places = {*itertools.chain(*(NAMES[ours] for ours in COORDINATES))}
    if bare in {*places, *AXES.values()} and not re.fullmatch(DEGREES, unit, re.IGNORECASE):
        return f"{name} ({unit}"  # in radians or metres it is another column
    return bare if bare in {*places, *NAMES["north_south"], *NAMES["east_west"]} else name


def _rows(
    file: Path, lines: Iterable[str], delimiter: str, skipped: int
) -> tuple[list[int], list[list[str]]]:
    """Number of the line where each row begins, and its values. Blank rows are left out."""
    usual = csv.field_size_limit(1 << 30)  # with it a long value is taken for a quote not closed
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    numbers, rows, line = [], [], skipped + 1
    try:
        for row in reader:
            if any(map(str.strip, row)):
                numbers.append(line)
                rows.append(row)
            line = skipped + reader.line_num + 1
    except csv.Error as error:
        wrong = f"a quoted value is not closed, or goes on after its quote ({error})"
        raise ValueError(f"{file}, line {line}: {wrong}") from error
    finally:
        csv.field_size_limit(usual)  # it holds for every reader of this process
    return numbers, rows


def columns_of(
    where: str, header: Sequence[str], given: dict[str, str] | None = None
) -> dict[str, int]:
    """Our name → number of the column that is meant: one that is given, else a usual name.

    A column without an id is its path. Two that could both be meant are a `ValueError`, and so is
    a table without places.

    >>> columns_of("photos.csv", ["Lat", "Lng", "File"])
    {'latitude': 0, 'longitude': 1, 'path': 2, 'id': 2}
    """
    plain, bare = [_plain(name) for name in header], [name.strip() for name in header]
    named = f"the columns are {', '.join(repr(name[:40]) for name in bare[:20])}"
    found: dict[str, int] = {}
    for ours, name in (given or {}).items():
        runtime.choose("name of ours in --columns", ours, NAMES)
        _check_different(where, [each for each in bare if each == name])
        if name not in bare:
            text = f"{where}: --columns {ours}={brief(name)}"
            raise ValueError(f"{text}: expected one such column; {named}")
        found[ours] = bare.index(name)
    for ours, names in NAMES.items():
        if ours in found:
            continue
        meant = [i for i, name in enumerate(plain) if name in names]
        meant = meant or [i for i, name in enumerate(plain) if name == AXES.get(ours)]
        exact = [i for i in meant if plain[i] == names[0]]
        if len(exact) == 1 and ours not in COORDINATES:
            meant = exact
        if len(meant) > 1:
            _check_different(where, [bare[i] for i in meant])
            both = " and ".join(repr(brief(bare[i])) for i in meant)
            advice = f"say which, as --columns {ours}=NAME"
            raise ValueError(f"{where}: columns {both} could each be the {ours}; {advice}")
        if meant:
            found[ours] = meant[0]
    if "path" in found:
        found.setdefault("id", found["path"])
    for ours in ("id", *COORDINATES):
        if ours not in found:
            also = f", or of path: {', '.join(NAMES['path'][:4])}" if ours == "id" else ""
            expected = f"expected one called {', '.join(NAMES[ours][:4])}{also}"
            expected = f"{expected}, or --columns {'path' if also else ours}=NAME"
            raise ValueError(f"{where}: no column of {ours}; {expected}; {named}")
    if found["latitude"] == found["longitude"]:
        both = brief(bare[found["latitude"]])
        raise ValueError(f"{where}: {both!r} is both latitude and longitude")
    return found


def _check_different(where: str, names: list[str]) -> None:
    """A `ValueError` if columns that are meant have one name, by which none can be chosen."""
    for name in names:
        if (times := names.count(name)) > 1:
            text = f"{where}: {times} columns are called {brief(name)!r}"
            raise ValueError(f"{text}; expected one: give the others another name")


def names_in(header: Sequence[str], found: dict[str, int]) -> str:
    """Which columns were taken for what, and which were not, in words."""
    taken = [f"{ours} from {brief(header[i].strip())!r}" for ours, i in found.items()]
    unused = [name.strip() for i, name in enumerate(header) if i not in found.values()]
    unused = [repr(brief(name)) for name in unused if name]
    more = ["…"] if len(unused) > 9 else []
    return ", ".join(taken) + (f"; not used: {', '.join(unused[:9] + more)}" if unused else "")


def checked(table: Columns) -> Columns:
    """The table with numbers for its places, longitudes from −180 to 180 and None for no label.

    Ids must differ, ids and paths hold no control characters and be there, places be on Earth. A
    row without a place is legal.
    """
    values = dict(table.values)
    for name in ("path", "id"):
        for row, text in enumerate(values.get(name, ())):
            if not text or re.search(r"[\x00-\x1f\x7f]", text):
                wrong = f"{name} {brief(text)!r}; expected a text without control characters"
                raise ValueError(f"{table.at(row)}: {wrong if text else f'no {name}'}")
    notes = list(table.notes)
    paths = "".join(values.get("path", ()))
    if "\\" in paths and "/" not in paths and not paths[1:].startswith(":"):
        values["path"] = [path.replace("\\", "/") for path in values["path"]]
        notes.append("backslashes in paths taken as /")
    earlier: dict[str, int] = {}
    for row, id_ in enumerate(values["id"]):
        if earlier.setdefault(id_, row) != row:
            first = table.at(earlier[id_]).rpartition(", ")[2]
            text = f"{table.at(row)}: id {brief(id_)!r} is also in {first}"
            raise ValueError(f"{text}; expected another")
    for name in COORDINATES:
        values[name] = [_degrees(text, name, table, row) for row, text in enumerate(values[name])]
        side, words = SIDES[name]
        if any(texts := values.pop(side, ())):
            sided = enumerate(zip(values[name], texts, strict=True))
            values[name] = [
                _on_side(words, *both, _stated(table, name, row)) for row, both in sided
            ]
    if wrapped := _wrap(values["longitude"]):
        first = f"{wrapped[1]:g} in {table.at(wrapped[0]).rpartition(', ')[2]}"
        notes.append(f"longitudes of 0 to 360 taken as −180 to 180 (the first: {first})")
    for row, place in enumerate(zip(*(values[name] for name in COORDINATES), strict=True)):
        for (name, most), number in zip(COORDINATES.items(), place, strict=True):
            if number is not None and not -most <= number <= most:
                text = f"{_stated(table, name, row)}; expected −{most} to {most}"
                others = filter(None, values["longitude"])
                swapped = (
                    name == "latitude" and abs(number) <= 180 and all(abs(x) <= 90 for x in others)
                )
                hint = "are latitude and longitude swapped?" if swapped else "are these degrees?"
                raise ValueError(f"{text}; {hint}")
    for name in LEVELS:
        if name in values:
            values[name] = [
                text if text not in ("", "NaN", "nan") else None for text in values[name]
            ]
    return Columns(values, table.at, tuple(notes))


def _stated(table: Columns, name: str, row: int) -> str:
    """A coordinate and its place, as the file states them: 1e999 is no inf there."""
    return f"{table.at(row)}: {name} {brief(str(table.values[name][row]).strip())}"


def _degrees(value, name: str, table: Columns, row: int) -> float | None:
    """A number, from a number or a text with a point or a comma; None if it is missing."""
    text = str("" if value is None else value).strip()
    if text.casefold() in MISSING:
        return None
    plain = re.sub(r"\s*(deg\.?|º|˚)\s*", "°", text.replace("−", "-"), flags=re.IGNORECASE)
    plain = re.sub(
        r"^([NSEW])\s*(.+)", r"\2 \1", plain.removesuffix("°").strip(), flags=re.IGNORECASE
    )
    if re.fullmatch(r"[+-]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)(e[+-]?[0-9]+)?", plain, re.IGNORECASE):
        return float(plain.replace(",", "."))
    angle = ANGLE.fullmatch(plain)
    sign, *parts, side = angle.groups("") if angle else ("",) * 5
    degrees, minutes, seconds = (float(part.replace(",", ".") or 0) for part in parts)
    sides = {"latitude": "NS", "longitude": "EW"}[name]
    told = (sign + side).upper() in ("+", "-", *sides)
    beside = table.values.get(SIDES[name][0])  # the sides, in a column of their own
    elsewhere = angle and not sign + side and beside and beside[row]
    twice = any(re.search("[.,]", a) and b for a, b in itertools.pairwise(parts))  # 48.9°51'
    if not (told or elsewhere) or twice or max(minutes, seconds) >= 60:
        expected = f"decimal degrees such as −33.86, or 33°51′36″{sides[1]}"
        raise ValueError(f"{table.at(row)}: {name} {brief(text)!r}; expected {expected}")
    size = degrees + minutes / 60 + seconds / 3600
    return -size if sign == "-" or side.upper() == sides[1] else size


def _on_side(words: dict[str, int], number: float | None, text: str, where: str) -> float | None:
    """Degrees with the sign of their side, which stands in a column of its own."""
    sign = words.get(text.strip(" .").upper())
    if number is not None and (sign is None or number < 0 < sign):
        expected = " or ".join(word.lower() for word in words if len(word) > 1)
        raise ValueError(f"{where} and the side {brief(text)!r}; expected {expected}")
    return number if number is None or sign is None else sign * abs(number)


def _wrap(longitudes: list[float | None]) -> tuple[int, float] | None:
    """If longitudes go from 0 to 360, those beyond 180 lose a turn: row and value of the first."""
    known = [x for x in longitudes if x is not None]
    if not known or min(known) < 0 or not 180 < max(known) <= 360:
        return None
    beyond = [(row, x) for row, x in enumerate(longitudes) if x is not None and x > 180]
    for row, x in beyond:
        longitudes[row] = x - 360
    return beyond[0]
