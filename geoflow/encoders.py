"""Image encoders: PIL images → embeddings (B, C). A frozen encoder turns images into the flow's conditions once."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn

from geoflow import sphere
from geoflow.checks import choose


def load_image(image) -> Image.Image:
    """A PIL image in RGB from a PIL image or a path.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read as an image, is neither, or has more than 8 bits per channel.
    """
    if isinstance(image, Image.Image):
        if image.mode[0] in "IF":  # PIL would clip them: a 16-bit image would come out white
            raise ValueError(f"an image of mode {image.mode!r}; expected 8 bits per channel, such as mode 'RGB' or 'L'")
        return image.convert("RGB")
    if not isinstance(image, (str, Path)):
        raise ValueError(f"an image of type {type(image).__name__}; expected a PIL image or a path")
    path = Path(image)
    if not path.is_file():
        raise FileNotFoundError(f"no image file at {path}")
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as opened:
            opened.load()
            return load_image(opened)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class TileEncoder(nn.Module):
    """A small convolutional network for Earth tiles: (B, 3, 32, 32) uint8 → (B, dim), standardised per image.

    Four stride-2 convolutions: on a CPU this reads more tiles in a minute than a deeper network, and tiles are what it lacks.
    The square root of the intensities spreads the dark oceans.

    Args:
        dim: C, width of the embedding.
        width: channels of the first layer.
    """

    name = "tiles"
    size = 32

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
        """A PIL image or path → (3, 32, 32) uint8: the whole image, squeezed to the tile's size with antialiasing."""
        image = load_image(image)
        if image.size != (self.size, self.size):
            image = image.resize((self.size, self.size), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    @torch.no_grad()
    def embed(self, pixels: Tensor, batch: int = 1024) -> Tensor:
        """Embeddings of many tiles, in batches and in evaluation mode: (n, 3, 32, 32) uint8 → (n, C)."""
        device = next(self.parameters()).device
        was_training = self.training
        self.eval()
        embeddings = torch.cat([self(chunk.to(device)).cpu() for chunk in pixels.split(batch)])
        self.train(was_training)
        return embeddings


class GeocellClassifier(nn.Module):
    """The encoder's teacher: which of `cells` Fibonacci cells holds the image? (B, …) → logits (B, cells)."""

    centers: Tensor

    def __init__(self, encoder: TileEncoder, cells: int):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(encoder.dim, cells))
        self.register_buffer("centers", sphere.fibonacci_grid(cells), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.encoder(pixels))

    def cell_of(self, x: Tensor) -> Tensor:
        """Number of the nearest cell: (B, 3) → (B,)."""
        return (x @ self.centers.T).argmax(-1)


ENCODERS = {encoder.name: encoder for encoder in (TileEncoder,)}


def from_config(config: dict) -> TileEncoder:
    """The encoder that a checkpoint's config describes, with fresh weights: {"name": …, **arguments}.

    Raises:
        ValueError: unknown name.
    """
    arguments = dict(config)
    return ENCODERS[choose("encoder", arguments.pop("name"), ENCODERS)](**arguments)
