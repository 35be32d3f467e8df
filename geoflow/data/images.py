"""Images as users hand them over: files, bytes, PIL images, arrays and tensors → RGB."""

import contextlib
import functools
import io
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError
from PIL.Image import Transpose
from torch import Tensor

# What is read, whatever a file's ending; others, such as EPS, are programs or mistaken for images.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF", "JPEG2000", "PPM")
UPRIGHT = {  # EXIF's orientation → how to turn; other values stand for as it is
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
TIFF_EXPECTED = (
    "one band, or three or four that are marked as RGB, of uint8 or uint16, pixel by pixel: "
    "gdal_translate -co PHOTOMETRIC=RGB -co INTERLEAVE=PIXEL"
)
HEIC = tuple(b"ftyp" + brand for brand in (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1"))

logging.getLogger("PIL").addHandler(logging.NullHandler())  # what it raises says which file


def load_image(image, name: str = "") -> Image.Image:
    """A PIL image in RGB, upright as EXIF says.

    Of an animation it is the first frame; 16 bits become 8; grey, palette and transparent images
    are converted. HEIC needs pillow-heif, the extra `heic`.

    Args:
        image: a PIL image, a path, the bytes of a file, or uint8 values as an array or a tensor:
            (H, W, 3), (H, W, 4) with transparency, or (H, W) of greys.
        name: what messages call it; default: the path.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is none of these, or cannot be read, whatever its decoder raised.
    """
    if isinstance(image, (str, Path)):
        name, image = name or str(image), Path(image)
        if not image.is_file():
            raise FileNotFoundError(f"no image file at {name}")
    elif isinstance(image, (np.ndarray, Tensor)):
        image = _from_array(image)
    elif not isinstance(image, (Image.Image, bytes)):
        expected = "a PIL image, a path, an array (H, W, 3) of uint8, bytes, or a list of them"
        raise ValueError(f"an image of type {type(image).__name__}; expected {expected}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of EXIF blocks and sizes that it can read
            if isinstance(image, Image.Image):
                return _upright_rgb(image)
            data = image if isinstance(image, bytes) else image.read_bytes()
            with open_photo(data) as opened:
                return _upright_rgb(opened)
    except Exception as error:  # damaged files make decoders raise nearly anything
        what = name or getattr(image, "filename", "") or "the image"
        why = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{what} cannot be read as an image: {why}") from error


def open_photo(data: bytes) -> Image.Image:
    """The image in the bytes of a file, not yet decoded: its size, mode and EXIF are known.

    Of a PNG, the one format whose checksums Pillow's decoder passes over, they are compared here.

    Raises:
        ValueError: no known format, HEIC without pillow-heif, or more pixels than Pillow's limit,
            twice `PIL.Image.MAX_IMAGE_PIXELS`; decoders may raise anything else.
    """
    heic = _reads_heic()
    Image.init()
    known = [name for name in FORMATS if name in Image.OPEN]
    try:
        image = Image.open(io.BytesIO(data), formats=known)
    except Image.DecompressionBombError as error:
        most = f"{2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} million pixels"
        raise ValueError(f"it has more than {most}, the limit; make a smaller copy") from error
    except UnidentifiedImageError as error:
        why = f"it is damaged, or none of {', '.join(known)}" if data else "it is empty"
        if data[4:12] in HEIC:
            needs = "HEIC needs the extra 'heic': pip install pillow-heif"
            why = "it is a damaged HEIC file" if heic else needs
        if data[:4] in TIFF:
            why = _unread_tiff(data)
        raise ValueError(why) from error
    if image.format == "PNG":
        with Image.open(io.BytesIO(data), formats=["PNG"]) as again:  # verifying uses it up
            again.verify()
    return image


def _unread_tiff(data: bytes) -> str:
    import rasterio

    try:
        with rasterio.open(io.BytesIO(data)) as file:
            kind = f"it is a TIFF of {file.count} bands of {file.dtypes[0]}"
    except rasterio.RasterioIOError:
        return "it is a damaged TIFF file"
    return f"{kind}; expected {TIFF_EXPECTED}"


@functools.cache
def _reads_heic() -> bool:
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _upright_rgb(image: Image.Image) -> Image.Image:
    if 0 in image.size:
        raise ValueError(f"it has {image.width} × {image.height} pixels")
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    _refuse_what_pillow_misreads(tags)
    image.load()
    # Pillow's exif_transpose writes all EXIF fields anew, and fails at one of a wrong type.
    turn = None
    with contextlib.suppress(Exception):  # damaged EXIF data say nothing
        turn = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation))
    image = image if turn is None else image.transpose(turn)
    if image.mode.startswith("I;16"):  # PIL would clip it, and most would come out white
        image = _eight_bits(image, tags)
    elif image.mode == "I" and image.format == "PPM":  # its greys run to 65535
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode[0] in "IF":
        expected = "expected unsigned values of 8 or 16 bits, such as mode 'RGB' or 'L'"
        raise ValueError(f"it has mode {image.mode!r}; {expected}")
    return image.convert("RGB")


def _refuse_what_pillow_misreads(tags: Mapping) -> None:
    """In a TIFF signed values are taken as unsigned. Of bands one after the other that are not RGB
    only the first is read, and those of 16 bits are mixed up.
    """
    signed = 2 in tags.get(TiffImagePlugin.SAMPLEFORMAT, ())
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (8,))
    planes = tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2
    grey = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0) < 2
    if signed or (planes and (max(bits) > 8 or (grey and len(bits) > 1))):
        kind = "signed values" if signed else f"{max(bits)} bits, band after band"
        raise ValueError(f"it is a TIFF of {kind}; expected {TIFF_EXPECTED}")


def _eight_bits(image: Image.Image, tags: Mapping) -> Image.Image:
    """Greys of 16 bits with 8; the tags of a TIFF may say that they have 12, or that 0 is white."""
    bits = 12 if tags.get(TiffImagePlugin.BITSPERSAMPLE) == (12,) else 16
    greys = (np.asarray(image).astype(np.uint16) >> (bits - 8)).astype(np.uint8)
    white_is_zero = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    return Image.fromarray(255 - greys if white_is_zero else greys)


def _from_array(values: np.ndarray | Tensor) -> Image.Image:
    """(H, W, 3), (H, W, 4) or (H, W) of uint8 as a PIL image."""
    shape, kind = tuple(values.shape), str(values.dtype).removeprefix("torch.")
    if kind != "uint8" or len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (3, 4)):
        text = f"an image of shape {shape} and type {kind}; expected (H, W, 3) of uint8, 0 to 255"
        turned = "; images.permute(1, 2, 0) turns (3, H, W) into it" if shape[:1] == (3,) else ""
        raise ValueError(text + turned)
    values = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    return Image.fromarray(np.ascontiguousarray(values))


def as_list(images) -> list:
    """One image or several, also as one array (B, H, W, 3) → a list that is not empty."""
    batch = isinstance(images, (np.ndarray, Tensor)) and images.ndim == 4
    images = list(images) if batch or isinstance(images, (list, tuple)) else [images]
    if not images:
        raise ValueError("an empty list of images; expected at least one")
    return images


def pixels_for(encoder, images, kind: torch.dtype) -> Tensor:
    """What an encoder looks at, (n, 3, size, size): images that it preprocesses, or the result."""
    seen = (3, encoder.size, encoder.size), kind
    if isinstance(images, Tensor) and (images.shape[1:], images.dtype) == seen:
        return images
    return torch.stack([encoder.preprocess(image) for image in as_list(images)])
