"""Image encoders: PIL images → embeddings (B, C), the conditions of the generative methods."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from geoflow.data.images import as_list, load_image
from geoflow.data.published import hub_is_silent
from geoflow.runtime import choose


def _pixels(encoder, images, kind: torch.dtype) -> Tensor:
    """What an encoder sees, (n, 3, size, size): preprocessed before, or of images."""
    seen = (3, encoder.size, encoder.size), kind
    if isinstance(images, Tensor) and (images.shape[1:], images.dtype) == seen:
        return images
    return torch.stack([encoder.preprocess(image) for image in as_list(images)])


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class TileEncoder(nn.Module):
    """A small convolutional network for Earth tiles: (B, 3, 32, 32) uint8 → (B, dim).

    It has four convolutions of stride 2, since on a CPU many tiles teach more than a deep network.
    The square root of the intensities spreads the dark oceans. Embeddings are standardised.

    Args:
        dim: C, width of the embedding.
        width: channels of the first layer.
    """

    name = "tiles"
    size = 32
    saved_with_models = True

    def __init__(self, dim: int = 256, width: int = 32):
        super().__init__()
        self.config = dict(dim=dim, width=width)
        self.dim = dim
        channels = [3, width, 2 * width, 4 * width, 8 * width]
        self.body = nn.Sequential(
            *(_conv(a, b) for a, b in zip(channels[:-1], channels[1:], strict=True)),
            nn.Flatten(),
            nn.Linear(4 * channels[-1], dim),
            nn.LayerNorm(dim, elementwise_affine=False),
        )
        self.body.to(memory_format=torch.channels_last)  # ty: ignore[no-matching-overload]

    def forward(self, pixels: Tensor) -> Tensor:
        pixels = (pixels.float() / 255).sqrt() * 4 - 2
        return self.body(pixels.contiguous(memory_format=torch.channels_last))

    def preprocess(self, image) -> Tensor:
        """A PIL image or path → (3, 32, 32) uint8: the whole image, resized with antialiasing."""
        image = load_image(image)
        if image.size != (self.size, self.size):
            image = image.resize((self.size, self.size), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    def describe(self) -> dict:
        """What a manifest of embeddings says of it, besides its name and weights."""
        return {"preprocessing": f"whole image, bicubic to {self.size} × {self.size}"}

    @torch.no_grad()
    def embed(self, images, batch: int = 1024) -> Tensor:
        """Embeddings (n, C), in batches and in evaluation mode, of images as `load_image` takes
        them, or of what `preprocess` made of them: (n, 3, 32, 32) uint8.
        """
        pixels, device = _pixels(self, images, torch.uint8), next(self.parameters()).device
        was_training = self.training
        self.eval()
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # exact as on a CPU
            embeddings = torch.cat([self(chunk.to(device)).cpu() for chunk in pixels.split(batch)])
        self.train(was_training)
        return embeddings


@dataclass(frozen=True)
class _Photo:
    """What is fixed about a published encoder: where it is, which class, how it sees an image."""

    repository: str
    model: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    square_first: bool


MOST_OBLONG = 200  # a photo that is longer would fill the memory when its short side is enlarged
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_DINO = "facebook/dinov2-with-registers-large", "Dinov2WithRegistersModel"
_PHOTO = {
    "dinov2": _Photo(*_DINO, *_IMAGENET, square_first=True),
    "streetclip": _Photo("geolocal/StreetCLIP", "CLIPVisionModel", *_CLIP, square_first=False),
}


class PhotoEncoder(nn.Module):
    """The frozen photo encoders of the paper: (B, 3, 336, 336) → (B, 1024), the CLS token.

    `dinov2` is DINOv2-L/14 with registers, `streetclip` StreetCLIP's ViT-L/14 before its final
    norm. The weights (1.2 GB) are fetched through transformers, or read from a folder, when the
    first image is embedded.

    Args:
        name: `dinov2` or `streetclip`.
        source: a folder with a model of that class, in place of the published one.

    Raises:
        ValueError: unknown name.
    """

    size = 336
    saved_with_models = False  # a model folder names it; its weights stay where they came from

    def __init__(self, name: str, source: str | None = None):
        super().__init__()
        self.photo = _PHOTO[choose("encoder", name, _PHOTO)]
        self.name = name
        self.config = {} if source is None else {"source": str(source)}
        self.source = source
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
        pixels = _pixels(self, images, torch.float32)
        body, device = self.load(), self.get_buffer("place").device
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            states = (body(part.to(device)).last_hidden_state for part in pixels.split(batch))
            return torch.cat([state[:, 0].float().cpu() for state in states])

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


PHOTO_ENCODERS = tuple(_PHOTO)
ENCODERS = {
    TileEncoder.name: TileEncoder,
    **{name: functools.partial(PhotoEncoder, name) for name in _PHOTO},
}


def from_config(config: dict) -> "TileEncoder | PhotoEncoder":
    """The encoder of a checkpoint's config {"name": …, **arguments}, with fresh weights."""
    arguments = dict(config)
    return ENCODERS[choose("encoder", arguments.pop("name"), ENCODERS)](**arguments)
