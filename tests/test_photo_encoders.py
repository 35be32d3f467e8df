"""Encoders of photos: what they see is what the official code sees, and weights that cannot be had are told."""

from types import SimpleNamespace

import numpy as np
import official
import pytest
import torch
from PIL import Image
from small import picture

from geoflow import Geolocator
from geoflow.data import photo_encoders
from geoflow.encoders import PhotoEncoder
from geoflow.velocity import VelocityTransformer


@pytest.fixture(params=["dinov2", "streetclip"])
def photo_encoder(request, tmp_path):
    """A tiny network of the published class, with random weights, in a folder."""
    import transformers

    small = dict(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, patch_size=14, image_size=336
    )
    torch.manual_seed(0)
    if request.param == "dinov2":
        body = transformers.Dinov2WithRegistersModel(
            transformers.Dinov2WithRegistersConfig(**small)
        )
    else:
        body = transformers.CLIPVisionModel(
            transformers.CLIPVisionConfig(**small, intermediate_size=64)
        )
    body.save_pretrained(tmp_path / "body")
    return PhotoEncoder(request.param, tmp_path / "body"), body.eval()


def test_photos_are_embedded_by_the_last_layers_class_token(photo_encoder):
    net, body = photo_encoder
    pixels = torch.stack([net.preprocess(picture(400, seed)) for seed in range(3)])
    assert pixels.shape == (3, 3, 336, 336)
    embedding = net.embed(pixels, batch=2)
    with torch.no_grad():
        assert torch.allclose(embedding, body(pixels).last_hidden_state[:, 0], atol=1e-5)
    assert embedding.shape == (3, 32)
    described = net.describe()
    assert described["source"] == net.source
    assert described["preprocessing"].startswith(
        {"dinov2": "central square", "streetclip": "bicubic"}[net.name]
    )
    assert torch.allclose(
        net.embed([picture(400, seed) for seed in range(3)]), embedding, atol=1e-5
    )
    if net.name == "streetclip":  # before CLIP's final norm
        assert not torch.allclose(embedding, body(pixels).pooler_output, atol=1e-2)


def test_photo_encoders_are_named_not_saved(photo_encoder, tmp_path):
    net, _ = photo_encoder
    network = VelocityTransformer(cond_dim=32, dim=16, depth=1)
    geo = Geolocator(network, encoder=net)
    expected = geo.embed(picture(50))
    again = Geolocator.from_pretrained(geo.save_pretrained(tmp_path / "model"))
    assert again.encoder.name == net.name
    assert torch.equal(again.embed(picture(50)), expected)
    assert (tmp_path / "model" / "model.safetensors").stat().st_size < 60_000


SIZES = [
    (500, 300),
    (300, 500),
    (336, 336),
    (337, 336),
    (339, 336),
    (165, 120),
    (170, 120),
    (640, 427),
    (341, 512),
    (1, 1),
    (3000, 20),
]


@pytest.mark.parametrize("size", SIZES)
def test_streetclip_sees_pixel_for_pixel_what_clips_own_processor_makes(size):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}
    )
    image = picture(size)
    theirs = torch.as_tensor(processor(images=image, return_tensors="np")["pixel_values"][0])
    assert torch.allclose(PhotoEncoder("streetclip").preprocess(image), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_dinov2_sees_the_central_square_resized(size):
    """By an independent way: torch's antialiased bicubic on the cropped pixels, to a grey level or two. Margins of half a pixel are
    rounded to even, as torchvision's CenterCrop does: 0.5 to 0, 1.5 to 2."""
    net = PhotoEncoder("dinov2")
    row, column = np.mgrid[: size[1], : size[0]]
    waves = [
        128 + 50 * np.sin(row / 9 + phase) * np.cos(column / 13 - phase) for phase in range(3)
    ]  # PIL clips overshoots in between
    image = Image.fromarray(np.stack(waves, -1).astype(np.uint8))
    mean, std = (torch.tensor(values)[:, None, None] for values in (net.photo.mean, net.photo.std))
    ours = (net.preprocess(image) * std + mean) * 255
    side = min(size)
    left, top = (
        2 * ((length - side + 1) // 4) if (length - side) % 2 else (length - side) // 2
        for length in size
    )
    square = (
        torch.from_numpy(np.array(image))
        .permute(2, 0, 1)[None, :, top : top + side, left : left + side]
        .float()
    )
    theirs = torch.nn.functional.interpolate(
        square, size=(336, 336), mode="bicubic", antialias=True, align_corners=False
    )[0].clamp(0, 255)
    assert (ours - theirs).abs().max() <= 2


@pytest.mark.parametrize("size", [(201, 1), (20_000, 3)])
def test_a_strip_would_fill_the_memory(size):
    with pytest.raises(
        ValueError, match=f"{size[0]} × {size[1]} pixels; expected sides of at most 200 to 1"
    ):
        PhotoEncoder("streetclip").preprocess(picture(size))


def test_weights_that_cannot_be_had(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    net = PhotoEncoder("dinov2", tmp_path / "empty")
    with pytest.raises(ConnectionError, match="encoder 'dinov2' could not be read from"):
        net.embed(torch.zeros(1, 3, 336, 336))


def test_a_published_model_loads_after_an_encoder(photo_encoder):
    """transformers replaces torch.linspace while it loads, and torch remembers the replacement as what a device context covers."""
    photo_encoder[0].load()
    assert Geolocator.from_pretrained(official.FOLDER).network is not None


@pytest.mark.parametrize(
    ("source", "said"), [(None, "geolocal/StreetCLIP"), ("no-such-folder", "no-such-folder")]
)
def test_without_a_network_it_is_said_at_once(source, said, monkeypatch):
    """Nobody waits for the client's 30 s of retries."""
    import huggingface_hub
    import transformers

    def refuses(*args, **options):
        raise TimeoutError

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_session", lambda: SimpleNamespace(head=refuses))
    monkeypatch.setattr(photo_encoders, "hub_is_silent", photo_encoders.hub_is_silent.__wrapped__)
    asked = {}
    monkeypatch.setattr(
        transformers.CLIPVisionModel,
        "from_pretrained",
        lambda source, **how: asked.update(how) or refuses(),
    )
    why = "it is not in the cache, and the hub gives no answer; .*--weights"
    folder = "no such folder; " if source else ""
    with pytest.raises(
        ConnectionError, match=f"encoder 'streetclip' could not be read from {said}: {folder}{why}"
    ):
        PhotoEncoder("streetclip", source).load()
    assert asked["local_files_only"]


@pytest.mark.parametrize("damage", ["cut", "garbage", "no json", "another network"])
def test_damaged_weights_are_never_replaced_by_random_ones(damage, photo_encoder):
    from safetensors.torch import load_file, save_file

    net, _ = photo_encoder
    file = net.source / "model.safetensors"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "garbage":
        file.write_bytes(b"\xff" * 1000)
    elif damage == "no json":
        (net.source / "config.json").write_text("{")
    else:
        weights = load_file(file)
        save_file(
            {f"other.{name}": weight for name, weight in weights.items()}, file, {"format": "pt"}
        )
    with pytest.raises(
        (ValueError, ConnectionError),
        match=f"encoder {net.name!r} could not be read from .*body: .",
    ) as error:
        net.load()
    assert "\n" not in str(error.value)
    assert net.body is None
