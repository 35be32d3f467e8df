"""Images as they are handed over: every container gives the same pixels, and whatever a decoder raises is one line that names the file."""

import builtins
import functools
import io
import itertools
import re
import struct
import subprocess
import sys
import zlib
from collections import Counter

import forged
import numpy as np
import pytest
import rasterio
import torch
from PIL import ExifTags, Image, ImageFile
from small import picture

from geoflow.data import images
from geoflow.data.images import as_list, load_image

MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK")


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_becomes_rgb(mode, tmp_path):
    image = picture().convert("L").convert(mode) if mode in ("1",) else picture().convert(mode)
    rgb = load_image(image)
    assert rgb.mode == "RGB"
    assert rgb.tobytes() == image.convert("RGB").tobytes()
    if mode != "CMYK":
        image.save(tmp_path / "picture.png")
        assert load_image(tmp_path / "picture.png").tobytes() == rgb.tobytes()


def test_sixteen_bits_become_eight(tmp_path):
    ramp = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    for image in (Image.fromarray(ramp), tmp_path / "deep.png"):
        assert np.array_equal(np.asarray(load_image(image))[..., 0], ramp >> 8)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_modes_beyond_eight_bits_are_not_clipped_silently(mode):
    """PIL clips them to white; an answer for a white image would be a wrong number."""
    ramp = np.linspace(0, 65535, 32 * 32).reshape(32, 32)
    image = {
        "I": Image.fromarray(ramp.astype(np.int32)),
        "F": Image.fromarray(ramp.astype(np.float32)),
    }[mode]
    assert image.mode == mode
    with pytest.raises(ValueError, match=f"mode '{mode}'"):
        load_image(image)


@pytest.mark.parametrize("most", [15, 255, 1000, 65535])
def test_greys_of_a_pgm(most):
    greys = np.linspace(0, most, 32 * 32).astype(">u2" if most > 255 else "u1").reshape(32, 32)
    found = np.asarray(load_image(b"P5 32 32 %d\n" % most + greys.tobytes()))[..., 0]
    assert np.abs(found - greys.astype(float) * 255 / most).max() <= 1


KINDS = itertools.product(
    ("uint8", "uint16", "int8", "int16", "float32"), (1, 2, 3, 4, 5), ("pixel", "band"),
    (None, "deflate"), (None, "RGB"), (False, True),
)  # fmt: skip


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_tiff_is_read_rightly_or_refused(tmp_path):
    """Of every kind that GDAL writes: the values that were written, or a message that says what it holds."""
    read, refused, messages = Counter(), Counter(), set()
    for dtype, bands, interleave, compress, photometric, tiled in KINDS:
        if photometric and bands < 3:
            continue
        profile = dict(dtype=dtype, count=bands, interleave=interleave, compress=compress)
        profile |= dict(photometric=photometric) if photometric else {}
        profile |= dict(tiled=True, blockxsize=16, blockysize=16) if tiled else {}
        values = np.arange(bands * 32 * 32).reshape(bands, 32, 32) * 7 % 120
        with rasterio.open(tmp_path / "a.tif", "w", "GTiff", 32, 32, **profile) as file:
            file.write((values << 8 if dtype == "uint16" else values).astype(dtype))
        try:
            found = np.asarray(load_image(tmp_path / "a.tif")).transpose(2, 0, 1)
        except ValueError as error:
            refused[dtype, bands] += 1
            messages.add(str(error))
            continue
        read[dtype, bands] += 1
        expected = values[:3] if bands >= 3 else np.repeat(values[:1], 3, 0)
        assert np.array_equal(found, expected), profile
    kinds = (
        "TIFF of (signed values|(8|16|32) bits, band after band|[2-5] bands of u?(int|float)[0-9]+)"
    )
    assert not [
        text
        for text in messages
        if not re.search(f"{kinds}; expected one band|mode 'F'; expected", text)
    ]
    assert {dtype for dtype, _ in read} == {"uint8", "uint16"}
    assert refused["uint8", 1] == refused["uint8", 3] == 0 < read["uint16", 1] == read["uint16", 3]


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no image file at .*nowhere\.png"):
        load_image(tmp_path / "nowhere.png")
    with pytest.raises(FileNotFoundError, match="no image file at"):
        load_image(tmp_path)


@pytest.mark.parametrize("content", ["text", "truncated", "empty"])
def test_files_that_are_not_images(content, tmp_path):
    picture(200).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "bad.png").write_bytes(
        {"text": b"not an image", "truncated": whole[: len(whole) // 2], "empty": b""}[content]
    )
    with pytest.raises(ValueError, match=r"bad\.png cannot be read as an image"):
        load_image(tmp_path / "bad.png")


def encoded(kind, image=None, **options):
    file = io.BytesIO()
    (picture() if image is None else image).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "kind", ["PNG", "TIFF", "BMP", "GIF", "WEBP", "JPEG", "MPO", "AVIF", "JPEG2000", "PPM"]
)
def test_the_bytes_of_a_file(kind, tmp_path):
    data = encoded(kind)
    (tmp_path / "file").write_bytes(data)  # the content decides, not the ending
    with Image.open(io.BytesIO(data)) as image:
        expected = image.convert("RGB").tobytes()
    assert load_image(data).tobytes() == load_image(tmp_path / "file").tobytes() == expected


def test_arrays_and_tensors():
    rgb = np.asarray(picture((20, 12)))
    turned = torch.from_numpy(rgb.copy()).permute(2, 0, 1).permute(1, 2, 0)  # not contiguous
    for given in (rgb, torch.from_numpy(rgb.copy()), turned, np.asfortranarray(rgb)):
        assert np.array_equal(np.asarray(load_image(given)), rgb)
    grey = np.ascontiguousarray(rgb[..., 0])
    assert np.array_equal(np.asarray(load_image(grey)), grey[..., None].repeat(3, -1))
    alpha = np.concatenate([rgb, np.full_like(rgb[..., :1], 7)], -1)
    assert np.array_equal(np.asarray(load_image(alpha)), rgb)


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (3, "type int; expected a PIL image, a path, an array"), (None, "type NoneType"), ({}, "type dict"), (iter([1]), "iterator; expected .*a list"),
        (np.zeros((32, 32, 3)), r"shape \(32, 32, 3\) and type float64; expected \(H, W, 3\) of uint8, 0 to 255"),
        (torch.zeros(32, 32, 3, dtype=torch.int64), "type int64"), (np.zeros((32, 32, 3), bool), "type bool"),
        (torch.zeros(3, 32, 32, dtype=torch.uint8), r"shape \(3, 32, 32\).*permute\(1, 2, 0\)"), (np.zeros((32, 32, 2), np.uint8), r"\(32, 32, 2\)"),
        (np.zeros(32, np.uint8), r"shape \(32,\)"), (np.zeros((1, 1, 32, 32, 3), np.uint8), r"\(1, 1, 32, 32, 3\)"), (np.zeros((0, 32, 3), np.uint8), "32 × 0 pixels"),
        (np.array(["a.jpg"]), "type <U5"), (b"bytes", "the image cannot be read as an image: it is damaged, or none of JPEG, PNG"), (b"", "cannot be read"),
    ],
)  # fmt: skip
def test_what_is_no_image(thing, message):
    with pytest.raises(ValueError, match=message):
        load_image(thing)


def test_one_image_or_several():
    image, batch = picture(), np.zeros((4, 8, 6, 3), np.uint8)
    assert as_list(image) == as_list([image]) == as_list((image,)) == [image]
    assert [part.shape for part in as_list(batch)] == [(8, 6, 3)] * 4
    assert len(as_list(torch.from_numpy(batch))) == 4
    assert [part.shape for part in as_list(batch[0])] == [(8, 6, 3)]


# Damaged files


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


HUGE = (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    + chunk(b"IDAT", zlib.compress(b"\0"))
    + chunk(b"IEND", b"")
)
DAMAGED = {
    **{
        f"half a {kind}": encoded(kind)[: len(encoded(kind)) // 2]
        for kind in ("PNG", "JPEG", "TIFF", "GIF", "WEBP", "AVIF")
    },
    "a decompression bomb": HUGE,
    "a broken chunk": encoded("PNG").replace(b"IDAT", b"IDAX"),
    "no pixels": encoded("BMP")[:18] + struct.pack("<ii", 0, 0) + encoded("BMP")[26:],
    "a film": b"\0\0\0\x18ftypmp42" + bytes(200),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_whatever_a_decoder_raises_names_the_file(name, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(DAMAGED[name])
    for given, called in ((tmp_path / "bad.jpg", ""), (DAMAGED[name], "in an archive/bad.jpg")):
        with pytest.raises(ValueError, match=r"bad\.jpg cannot be read as an image: .") as error:
            load_image(given, called)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["EPS", "PDF", "TGA", "PCX", "ICO", "DDS"])
def test_other_formats_are_not_tried(kind):
    """Of EPS a program would be executed; others take bytes for an image that are none."""
    with pytest.raises(ValueError, match="it is damaged, or none of JPEG, PNG"):
        load_image(encoded(kind, picture(64)), "file.jpg")


PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty$"), (HUGE, "it has more than 179 million pixels, the limit; make a smaller copy$"), (encoded("TIFF", Image.new("1", (20_000, 9_000))), "it has more than 179 million pixels"),
        (encoded("GIF").replace(struct.pack("<HH", 32, 32), b"\xff" * 4, 1), "it has more than 179 million pixels"), (PNG, "it is damaged, or none of JPEG, PNG, WEBP, TIFF, BMP, GIF,.* PPM$"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "(it is a damaged HEIC file|pip install pillow-heif)$"),
    ],
)  # fmt: skip
def test_messages_are_in_plain_words(data, message):
    with pytest.raises(ValueError, match=rf"^a\.jpg cannot be read as an image: {message}"):
        load_image(data, "a.jpg")


@pytest.mark.slow
def test_decoders_print_nothing_of_their_own(tmp_path):
    tiff = encoded("TIFF")
    at = tiff.index(struct.pack("<HH", 277, 3)) + 8  # SamplesPerPixel
    (tmp_path / "a.tif").write_bytes(tiff[:at] + b"\xff\xff" + tiff[at + 2 :])
    code = "import sys; from geoflow import photos; photos.read(sys.argv[1])"
    command = [sys.executable, "-c", code, str(tmp_path / "a.tif")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.stderr.splitlines()[0].startswith("Traceback")
    assert "a.tif cannot be read as an image: " in run.stderr.splitlines()[-1]


@pytest.mark.parametrize("of", ["bytes", "file", "image"])
def test_a_large_image_is_no_warning(of, tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    given = {"bytes": encoded("PNG"), "file": tmp_path / "a.png", "image": picture()}[of]
    assert load_image(given).size == (32, 32)
    assert not recwarn


CORNERS = Image.new("RGB", (48, 32), "red")
CORNERS.paste("blue", (24, 16, 48, 32))
AWKWARD = [  # other fields and blocks, of types that Pillow does not expect
    {}, {forged.X_RESOLUTION: forged.text("seventy-two")}, {forged.YCBCR_POSITIONING: forged.text("centered")}, {forged.X_RESOLUTION: forged.rationals((1, 0))},
    {0x201: forged.text("x")}, {0x2BC: (forged.LONG, b"\xff" * 4)}, {0x8773: forged.rationals((1, 0))}, {forged.EXIF: (forged.LONG, b"\xff" * 4)}, {forged.GPS: forged.text("x")},
]  # fmt: skip


@pytest.mark.parametrize("fields", AWKWARD)
@pytest.mark.parametrize("opened", [False, True])
def test_a_photo_is_upright_whatever_its_other_fields_are(fields, opened):
    """Where the blue corner comes to lie, by EXIF's definition of the eight orientations."""
    blue = {1: "↘", 2: "↙", 3: "↖", 4: "↗", 5: "↘", 6: "↙", 7: "↖", 8: "↗"}
    for orientation, corner in {**blue, 0: "↘", 9: "↘"}.items():
        block = forged.exif({forged.ORIENTATION: forged.short(orientation), **fields})
        data = forged.jpeg(block, image=CORNERS)
        image = load_image(Image.open(io.BytesIO(data)) if opened else data)
        assert image.size == ((32, 48) if orientation in (5, 6, 7, 8) else (48, 32))
        right, low = image.width - 5, image.height - 5
        at = {"↘": (right, low), "↙": (5, low), "↖": (5, 5), "↗": (right, 5)}
        found = [arrow for arrow, place in at.items() if image.getpixel(place)[2] > 127]
        assert found == [corner], orientation


@pytest.mark.parametrize(
    "block", [b"Exif\0\0garbage", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\x7f"]
)
def test_damaged_exif_data_are_no_damaged_photo(block):
    assert load_image(forged.jpeg(block)).size == (48, 32)


@pytest.mark.parametrize(
    "error", [TypeError("x"), ValueError("x\n\ny\n"), struct.error("x"), SyntaxError("x"), EOFError(), OverflowError("x"), IndexError("x"), KeyError(5), ZeroDivisionError("x"), AttributeError("x"), MemoryError(), RuntimeError("x"), AssertionError()]
)  # fmt: skip
def test_no_exception_of_a_decoder_goes_through(error, tmp_path, monkeypatch):
    def raises(self):
        raise error

    picture().save(tmp_path / "bad.png")
    monkeypatch.setattr(ImageFile.ImageFile, "load", raises)
    with pytest.raises(
        ValueError, match=rf"bad\.png cannot be read as an image: ({type(error).__name__}|x|x y|5)$"
    ):
        load_image(tmp_path / "bad.png")


def test_ctrl_c_is_no_damaged_file(tmp_path, monkeypatch):
    def interrupted(self):
        raise KeyboardInterrupt

    picture().save(tmp_path / "good.png")
    monkeypatch.setattr(ImageFile.ImageFile, "load", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_image(tmp_path / "good.png")


# HEIC


def heic(image, **options):
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, quality=-1, **options)
    return file.getvalue()


def test_heic_is_read_and_upright():
    flat = Image.new("RGB", (64, 48), (200, 120, 40))
    block = Image.Exif()
    block[ExifTags.Base.Orientation] = 6
    assert np.abs(np.asarray(load_image(heic(flat))).astype(int) - (200, 120, 40)).max() <= 3
    assert load_image(heic(flat, exif=block.tobytes())).size == (48, 64)


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1", b"msf1"])
def test_without_the_extra_the_message_names_it(brand, monkeypatch):
    importing = builtins.__import__

    def without(name, *rest, **options):
        if name == "pillow_heif":
            raise ModuleNotFoundError(name)
        return importing(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(images, "_reads_heic", functools.cache(images._reads_heic.__wrapped__))
    monkeypatch.setattr(
        Image, "OPEN", {name: how for name, how in Image.OPEN.items() if name != "HEIF"}
    )
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    data = b"\0\0\0\x18ftyp" + brand + bytes(300)
    with pytest.raises(
        ValueError,
        match=r"IMG_1\.HEIC cannot be read as an image: HEIC needs the extra 'heic': pip install pillow-heif",
    ):
        load_image(data, "IMG_1.HEIC")
    with pytest.raises(ValueError, match="it is damaged, or none of JPEG, PNG"):
        load_image(data.replace(brand, b"qt  "), "film.mov")


# What only some formats can tell


def damaged_pngs():
    """One flipped bit of the pixels; half of them replaced by NULs; a lost end; a later frame."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    whole = encoded("PNG", noise)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 4
    moving = encoded("PNG", noise, save_all=True, append_images=[picture(64)])
    later = bytearray(moving)
    later[moving.index(b"fdAT") + 20] ^= 1
    zeros = b"\0" * (len(whole) - len(whole) // 2)
    return {
        "a bit": bytes(flipped),
        "zeros": whole[: len(whole) // 2] + zeros,
        "no end": whole[:-12],
        "a later frame": bytes(later),
    }


@pytest.mark.parametrize("name", damaged_pngs())
def test_the_checksums_of_a_png_are_compared(name):
    """Pillow's decoder passes over them, and would show other pixels."""
    with pytest.raises(ValueError, match=r"^a\.png cannot be read as an image: .*PNG"):
        load_image(damaged_pngs()[name], "a.png")


def test_a_whole_png_passes_whatever_follows_it():
    moving = encoded("PNG", picture(), save_all=True, append_images=[picture(32, 1)])
    for data in (encoded("PNG"), encoded("PNG") + b"more", moving):
        assert load_image(data).tobytes() == picture().tobytes()


def tiff(greys, bits, photometric):
    """A TIFF of one strip of greys, (H, W), written byte by byte."""
    height, width = greys.shape
    if bits == 12:
        pairs = greys.reshape(-1, 2).astype(int)
        high, low = pairs[:, 0], pairs[:, 1]
        packed = np.stack([high >> 4, (high & 15) << 4 | low >> 8, low & 255], -1)
        strip = packed.astype(np.uint8).tobytes()
    else:
        strip = greys.astype(f"<u{bits // 8}").tobytes()
    fields = {256: width, 257: height, 258: bits, 259: 1, 262: photometric}
    fields |= {273: 8 + 2 + 12 * 9 + 4, 277: 1, 278: height, 279: len(strip)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields.items())
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + entries + b"\0" * 4 + strip


@pytest.mark.parametrize(("bits", "photometric"), [(8, 0), (8, 1), (16, 0), (16, 1), (12, 1)])
@pytest.mark.parametrize("opened", [False, True])
def test_a_tiff_says_whether_zero_is_white(bits, photometric, opened):
    greys = np.linspace(0, 2**bits - 1, 32 * 16).reshape(16, 32).astype(np.uint16)
    data = tiff(greys, bits, photometric)
    expected = greys >> (bits - 8)
    expected = 255 - expected if photometric == 0 else expected
    image = load_image(Image.open(io.BytesIO(data)) if opened else data)
    assert np.array_equal(np.asarray(image)[..., 0], expected)
