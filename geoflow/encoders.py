"""Image encoders: PIL images → embeddings (B, C), the conditions of the generative methods.

The encoders of photos, which only the published models need, are in `geoflow.data.photo_encoders`.
"""

import functools

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from geoflow.data.images import load_image, pixels_for
from geoflow.data.photo_encoders import PHOTO_ENCODERS, PhotoEncoder, finite
from geoflow.runtime import choose


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class TileEncoder(nn.Module):
    """A small convolutional network for Earth tiles: (B, 3, 32, 32) uint8 → (B, dim).

    Four convolutions of stride 2 keep it fast: in the same time on a CPU it learns more from more
    tiles than from more layers. The square root of the intensities makes differences between dark
    oceans larger. Embeddings are standardised.

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
        pixels, device = pixels_for(self, images, torch.uint8), next(self.parameters()).device
        was_training = self.training
        self.eval()
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # exact as on a CPU
            embeddings = torch.cat([self(chunk.to(device)).cpu() for chunk in pixels.split(batch)])
        self.train(was_training)
        return finite(embeddings)


ENCODERS = {
    TileEncoder.name: TileEncoder,
    **{name: functools.partial(PhotoEncoder, name) for name in PHOTO_ENCODERS},
}


def from_config(config: dict) -> "TileEncoder | PhotoEncoder":
    """The encoder of a checkpoint's config {"name": …, **arguments}, with fresh weights."""
    arguments = dict(config)
    return ENCODERS[choose("encoder", arguments.pop("name"), ENCODERS)](**arguments)
