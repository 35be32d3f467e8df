"""Photos whose EXIF blocks are written byte by byte, so that any field can have any type and any value."""

import io
import struct

from PIL import Image

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SRATIONAL = 1, 2, 3, 4, 5, 7, 10
SIZE = {BYTE: 1, ASCII: 1, SHORT: 2, LONG: 4, RATIONAL: 8, UNDEFINED: 1, SRATIONAL: 8}
MAKE, MODEL, ORIENTATION, X_RESOLUTION, YCBCR_POSITIONING = 0x10F, 0x110, 0x112, 0x11A, 0x213
EXPOSURE_TIME, EXIF, GPS = 0x829A, 0x8769, 0x8825
LAT_REF, LAT, LON_REF, LON, STATUS, MEASURE_MODE = 1, 2, 3, 4, 9, 10


def text(value):
    """An ASCII field."""
    return ASCII, value.encode("latin-1") + b"\0"


def short(value):
    return SHORT, struct.pack("<H", value)


def rationals(*parts, kind=RATIONAL):
    """Each part a number of at most 4 decimals, or a pair (numerator, denominator)."""
    pairs = (part if isinstance(part, tuple) else (round(part * 10_000), 10_000) for part in parts)
    return kind, b"".join(
        struct.pack("<ii" if kind == SRATIONAL else "<II", *pair) for pair in pairs
    )


def exif(fields, **blocks):
    """An EXIF block of {tag: (type, bytes)}, with the blocks `exif` and `gps` in it."""
    blocks = {EXIF: blocks.get("exif"), GPS: blocks.get("gps")}
    fields = {
        **fields,
        **{tag: (LONG, b"\0" * 4) for tag, block in blocks.items() if block is not None},
    }
    main, where = _directory(fields, 8)
    for tag, block in blocks.items():
        if block is not None:
            start = 8 + len(main)
            main[where[tag] : where[tag] + 4] = struct.pack("<I", start)
            main += _directory(block, start)[0]
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + bytes(main)


def _directory(fields, start):
    """The bytes of an IFD that lies at `start`, and where in them the value of each field is."""
    entries, where = bytearray(struct.pack("<H", len(fields))), {}
    data, after = bytearray(), start + 2 + 12 * len(fields) + 4
    for tag, (kind, value) in sorted(fields.items()):
        where[tag] = len(entries) + 8
        entries += struct.pack("<HHI", tag, kind, len(value) // SIZE[kind])
        if len(value) > 4:
            entries += struct.pack("<I", after + len(data))
            data += value + b"\0" * (len(value) % 2)
        else:
            entries += value.ljust(4, b"\0")
    return entries + b"\0" * 4 + data, where


def gps(lat=(48, 51, 30.24), north="N", lon=(2, 17, 40.2), east="E", **more):
    """A GPS block; a ref is a text, a field (type, bytes) or None, more are fields by tag."""
    block = {LAT: lat if isinstance(lat[-1], bytes) else rationals(*lat)}
    block |= {LON: lon if isinstance(lon[-1], bytes) else rationals(*lon)}
    for tag, ref in ((LAT_REF, north), (LON_REF, east)):
        if ref is not None:
            block[tag] = text(ref) if isinstance(ref, str) else ref
    return block | {
        {"status": STATUS, "mode": MEASURE_MODE}[name]: text(value) for name, value in more.items()
    }


def jpeg(block=b"", size=(48, 32), image=None):
    """The bytes of a photo with an EXIF block."""
    file = io.BytesIO()
    (image or Image.new("RGB", size, (200, 120, 40))).save(file, "JPEG", exif=block)
    return file.getvalue()
