"""The frozen encoders of photos that the published models need, through transformers."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from geoflow.data.images import load_image, pixels_for
from geoflow.data.published import hub_is_silent
from geoflow.runtime import choose


@dataclass(frozen=True)
class Photo:
    """What is fixed about a published encoder: its repository, its class, its preprocessing."""

    repository: str
    model: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    square_first: bool


WIDTH = 1024  # of the embeddings of the published encoders, both ViT-L
MOST_OBLONG = 200  # a photo that is longer would fill the memory when its short side is enlarged
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_DINO = "facebook/dinov2-with-registers-large", "Dinov2WithRegistersModel"
PHOTOS = {
    "dinov2": Photo(*_DINO, *_IMAGENET, square_first=True),
    "streetclip": Photo("geolocal/StreetCLIP", "CLIPVisionModel", *_CLIP, square_first=False),
}


PHOTO_ENCODERS = tuple(PHOTOS)


class PhotoEncoder(nn.Module):
    """The frozen photo encoders of the paper: (B, 3, 336, 336) → (B, 1024), the CLS token.

    `dinov2` is DINOv2-L/14 with registers, `streetclip` StreetCLIP's ViT-L/14 before its final
    norm. The weights (1.2 GB) are fetched through transformers, or read from a folder, when the
    first image is embedded.

    >>> from PIL import Image
    >>> PhotoEncoder("dinov2").preprocess(Image.new("RGB", (640, 480))).shape
    torch.Size([3, 336, 336])

    Args:
        name: `dinov2` or `streetclip`.
        source: a folder with a model of that class, in place of the published one.

    Raises:
        ValueError: unknown name, or a source that is no path.
    """

    size = 336
    saved_with_models = False  # a model folder names it; its weights stay where they came from

    def __init__(self, name: str, source: str | None = None):
        super().__init__()
        self.photo = PHOTOS[choose("encoder", name, PHOTOS)]
        if source is not None and not (isinstance(source, (str, Path)) and str(source)):
            text = f"encoder {name!r} with source = {source!r}"
            raise ValueError(f"{text}; expected the path of a folder, a text")
        self.name = name
        self.config = {} if source is None else {"source": str(source)}
        self.source = source
        self.dim = WIDTH if source is None else None  # a folder may hold another size of network
        self.body: nn.Module | None = None
        self.register_buffer("place", torch.zeros(0), persistent=False)  # is on the device

    def preprocess(self, image) -> Tensor:
        """A PIL image or path → (3, 336, 336), normalised: the central square, bicubic.

        DINOv2's photos are cropped to a square and then resized, StreetCLIP's the other way round,
        pixel for pixel as in the official code. Photos are first turned upright, as EXIF says.
        """
        image = load_image(image)
        if max(image.size) > MOST_OBLONG * min(image.size):
            text = f"an image of {image.width} × {image.height} pixels"
            raise ValueError(f"{text}; expected sides of at most {MOST_OBLONG} to 1")
        if self.photo.square_first:
            image = _central_square(image, round)
        short = min(image.size)
        width, height = (self.size * length // short for length in image.size)
        image = _central_square(image.resize((width, height), Image.Resampling.BICUBIC), math.floor)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        mean, std = torch.tensor([self.photo.mean, self.photo.std])[:, :, None, None]
        return (pixels - mean) / std

    @torch.no_grad()
    def embed(self, images, batch: int = 8) -> Tensor:
        """Embeddings (n, C), in batches, on a GPU in bfloat16, of images as `load_image` takes
        them, or of what `preprocess` made of them: (n, 3, 336, 336).
        """
        pixels = pixels_for(self, images, torch.float32)
        body, device = self.load(), self.get_buffer("place").device
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            states = (body(part.to(device)).last_hidden_state for part in pixels.split(batch))
            return finite(torch.cat([state[:, 0].float().cpu() for state in states]))

    def describe(self) -> dict:
        """What a manifest of embeddings says of it, beside its name and weights."""
        order = ("central square", "bicubic")
        crop = ", then ".join(order if self.photo.square_first else order[::-1])
        size = f"{self.size} × {self.size}"
        seen = f"{crop} to {size}, mean {self.photo.mean}, deviation {self.photo.std}"
        revision = getattr(self.load().config, "_commit_hash", None)
        source = self.source or self.photo.repository
        return {"source": source, "revision": revision, "preprocessing": seen}

    def load(self) -> nn.Module:
        """The network, loaded on the first call.

        Raises:
            ModuleNotFoundError: transformers is not installed.
            ConnectionError: the weights are not in the cache, and the hub gives no answer.
            ValueError: they are damaged, or another network's.
        """
        if self.body is None:
            try:
                import transformers
            except ModuleNotFoundError as error:
                needs = f"encoder {self.name!r} needs the extra 'photos'"
                raise ModuleNotFoundError(f"{needs}: pip install transformers") from error
            source = self.source or self.photo.repository
            what = f"encoder {self.name!r} could not be read from {source}"
            silent = not Path(source).is_dir() and hub_is_silent()
            how = dict(local_files_only=silent, output_loading_info=True)
            try:
                body, report = getattr(transformers, self.photo.model).from_pretrained(
                    source, **how
                )
            except OSError as error:
                why = "it is not in the cache, and the hub gives no answer; " if silent else ""
                why = why if not self.source or Path(source).is_dir() else f"no such folder; {why}"
                advice = "a folder of its weights can be named: --weights, PhotoEncoder(source=…)"
                said = " ".join(str(error).split())
                raise ConnectionError(f"{what}: {why}{advice} ({said})") from error
            except Exception as error:  # damaged files make the libraries raise nearly anything
                raise ValueError(f"{what}: {' '.join(str(error).split())}") from error
            lacking = [key for key in report["missing_keys"] if not key.endswith("position_ids")]
            if lacking:  # they would be random
                raise ValueError(f"{what}: it lacks {len(lacking)} weights, such as {lacking[0]}")
            self.body = body.to(self.get_buffer("place").device).eval().requires_grad_(False)
        return self.body


def _central_square(image: Image.Image, whole: Callable[[float], int]) -> Image.Image:
    """The largest square around the centre.

    `whole` rounds half a pixel of margin: torchvision to even, CLIP's processor down.
    """
    side = min(image.size)
    left, top = (whole((length - side) / 2) for length in image.size)
    return image.crop((left, top, left + side, top + side))


def finite(embeddings: Tensor) -> Tensor:
    """The embeddings (n, C); a FloatingPointError if a number of one is NaN or infinite."""
    if bad := int((~embeddings.isfinite()).any(-1).sum()):
        text = f"{bad} of {len(embeddings)} embeddings are not finite"
        raise FloatingPointError(f"{text}; the weights of the encoder are damaged")
    return embeddings
