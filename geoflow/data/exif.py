"""What a camera wrote into a photo's EXIF data: where it was, and which camera it is.

The fields are as the EXIF standard (CIPA DC-008) has them; programs that write them in other forms
are many, so every field is checked, and what cannot be told is no place.
"""

import math

from PIL import ExifTags, Image
from PIL.ExifTags import GPS, Base

NORTH_SOUTH = {"N": 1, "NORTH": 1, "S": -1, "SOUTH": -1}
EAST_WEST = {"E": 1, "EAST": 1, "W": -1, "WEST": -1}
EXPOSURE = (Base.ExposureTime, Base.FNumber, Base.FocalLength, Base.ISOSpeedRatings)


def place(image: Image.Image) -> tuple[tuple[float, float] | None, str]:
    """Latitude and longitude by the camera, degrees, or None and why they cannot be told.

    >>> place(Image.new("RGB", (8, 8)))
    (None, 'its EXIF data have no place')
    """
    try:
        gps = _block(image, ExifTags.IFD.GPSInfo)
        if not gps:
            raise ValueError("its EXIF data have no place")
        status, mode = (_word(gps.get(tag)) for tag in (GPS.GPSStatus, GPS.GPSMeasureMode))
        if status in ("V", "VOID"):
            raise ValueError("its EXIF data say that the camera had no fix")
        lat = _degrees("latitude", gps, GPS.GPSLatitude, GPS.GPSLatitudeRef, 90, NORTH_SOUTH)
        lon = _degrees("longitude", gps, GPS.GPSLongitude, GPS.GPSLongitudeRef, 180, EAST_WEST)
        if lat == lon == 0 and status not in ("A", "ACTIVE") and mode not in ("2", "3"):
            raise ValueError("its EXIF data say 0° N 0° E without a fix")
    except ValueError as error:
        return None, str(error)
    return (lat, lon), ""


def camera(image: Image.Image) -> str:
    """The camera's maker and model, or that there is an exposure; empty if no camera is named.

    >>> camera(Image.new("RGB", (8, 8)))
    ''
    """
    try:
        names, taken = _block(image), _block(image, ExifTags.IFD.Exif)
    except ValueError as error:
        # Damaged EXIF data count as a camera's, since only cameras and photo editors write them.
        return str(error)
    words = (_word(names.get(tag)).title()[:30] for tag in (Base.Make, Base.Model))
    unnamed = "unnamed" if any(tag in taken for tag in EXPOSURE) else ""
    return " ".join(filter(None, words)) or unnamed


def _block(image: Image.Image, which: int | None = None) -> dict:
    """The main block of the EXIF data, or another; empty if there is none."""
    try:
        exif = image.getexif()
        return dict(exif if which is None else exif.get_ifd(which))
    except Exception as error:  # damaged blocks make Pillow raise nearly anything
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
        raise ValueError(f"its EXIF data are damaged ({why})") from error


def _word(value) -> str:
    """A text of EXIF data in capitals, whatever its form: `s`, `S `, bytes, the tuple ("S",)."""
    value = value[0] if isinstance(value, (tuple, list)) and value else value
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value or "")
    return text.partition("\0")[0].strip(" .\t\r\n").upper()


def _brief(value) -> str:
    """A value of a field as messages show it."""
    return repr(value)[:80]


def _degrees(name: str, gps: dict, tag: int, side: int, most: float, sides: dict) -> float:
    """Signed degrees of (degrees, minutes, seconds), of which the last ones may be absent."""
    if tag not in gps:
        raise ValueError(f"its EXIF data have no {name}")
    value = gps[tag]
    parts = value if isinstance(value, (tuple, list)) else [value]
    text, facing = f"its EXIF data have the {name} {_brief(value)}", _brief(gps.get(side))
    try:
        parts = [float(part) for part in parts if not isinstance(part, bytes)]
        degrees, *smaller = parts
        minutes, seconds = [*smaller, 0.0, 0.0][: max(2, len(smaller))]
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"{text}; expected degrees, minutes, seconds") from error
    if any(map(math.isnan, parts)):
        raise ValueError(f"its EXIF data have no {name}: a part of it is no number, or 0/0")
    size = abs(degrees) + minutes / 60 + seconds / 3600
    twice = (degrees % 1 and minutes + seconds) or (minutes % 1 and seconds)  # fractions, and parts
    if not (0 <= minutes <= 60 and 0 <= seconds <= 60 and size <= most) or twice:
        raise ValueError(f"{text}; expected degrees, minutes, seconds within {most}°")
    sign = sides.get(_word(gps.get(side)))
    if sign is None:
        expected = " or ".join(word for word in sides if len(word) > 1).lower()
        raise ValueError(f"{text} and the side {facing}; expected {expected}")
    if degrees < 0 < sign:
        raise ValueError(f"{text} and the side {facing}, which contradict each other")
    return sign * size
