"""Encoders: any image in, the same embedding whatever its container; what is no image is refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from small import picture

from geoflow import Geolocator, encoders, sphere
from geoflow.encoders import TileEncoder, load_image
from geoflow.training.modules import GeocellClassifier
from geoflow.velocity import VelocityTransformer

MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "I", "F")


def encoder():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TileEncoder(dim=16, width=4).eval()


def test_embedding_has_its_shape_and_is_standardised():
    pixels = torch.stack([encoder().preprocess(picture(seed=i)) for i in range(5)])
    assert pixels.dtype == torch.uint8
    embedding = encoder().embed(pixels)
    assert embedding.shape == (5, 16)
    assert embedding.mean(-1).abs().max() < 1e-5
    assert torch.allclose(embedding.var(-1, correction=0), torch.ones(5), atol=1e-2)


def test_embedding_does_not_depend_on_the_batch_and_leaves_the_mode_alone():
    net = encoder()
    pixels = torch.randint(
        256, (10, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    whole = net.embed(pixels)
    assert torch.allclose(net.embed(pixels, batch=3), whole, atol=1e-5)
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert torch.allclose(net.embed(pixels), whole, atol=1e-5)
    assert net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_preprocess_of_a_tile_is_the_tile():
    image = picture()
    assert torch.equal(
        encoder().preprocess(image), torch.from_numpy(np.array(image)).permute(2, 0, 1)
    )


def test_preprocess_squeezes_the_whole_image_with_antialiasing():
    stripes = np.zeros((320, 640, 3), np.uint8)
    stripes[:, ::2] = 200
    pixels = encoder().preprocess(Image.fromarray(stripes))
    assert pixels.shape == (3, 32, 32)
    assert (pixels.float() - 100).abs().max() <= 3


def test_path_and_pil_image_give_the_same(tmp_path):
    image = picture(40)
    image.save(tmp_path / "picture.png")
    expected = encoder().preprocess(image)
    assert torch.equal(encoder().preprocess(tmp_path / "picture.png"), expected)
    assert torch.equal(encoder().preprocess(str(tmp_path / "picture.png")), expected)


@pytest.mark.parametrize("mode", MODES[:7])
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


@pytest.mark.parametrize("thing", [3, None, np.zeros((32, 32, 3)), b"bytes"])
def test_what_is_no_image(thing):
    with pytest.raises(
        ValueError, match=f"type {type(thing).__name__}; expected a PIL image or a path"
    ):
        load_image(thing)


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


# Photo encoders


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
    return encoders.PhotoEncoder(request.param, tmp_path / "body"), body.eval()


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
    assert torch.allclose(
        encoders.PhotoEncoder("streetclip").preprocess(image), theirs, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("size", SIZES)
def test_dinov2_sees_the_central_square_resized(size):
    """By an independent way: torch's antialiased bicubic on the cropped pixels, to a grey level or two. Margins of half a pixel are
    rounded to even, as torchvision's CenterCrop does: 0.5 to 0, 1.5 to 2."""
    net = encoders.PhotoEncoder("dinov2")
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


def test_weights_that_cannot_be_had(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    net = encoders.PhotoEncoder("dinov2", tmp_path / "empty")
    with pytest.raises(ConnectionError, match="encoder 'dinov2' could not be read from"):
        net.embed(torch.zeros(1, 3, 336, 336))


def test_geocells_are_nearest_centres(generator):
    classifier = GeocellClassifier(encoder(), 50)
    x = sphere.uniform(200, generator)
    nearest = sphere.distance(x[:, None], sphere.fibonacci_grid(50)[None]).argmin(-1)
    assert torch.equal(classifier.cell_of(x), nearest)
    assert torch.equal(classifier.cell_of(classifier.centers), torch.arange(50))
    assert classifier(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, 50)


def test_config_rebuilds_the_encoder():
    net = encoder()
    twin = encoders.from_config({"name": net.name, **net.config})
    twin.load_state_dict(net.state_dict())
    pixels = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    assert torch.equal(net.embed(pixels), twin.embed(pixels))
    with pytest.raises(ValueError, match="unknown encoder 'tile' .did you mean 'tiles'"):
        encoders.from_config({"name": "tile"})
