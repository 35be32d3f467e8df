"""Encoders: any image in, the same embedding whatever its container; what is no image is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from geoflow import encoders, sphere
from geoflow.encoders import GeocellClassifier, TileEncoder, load_image

MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "I", "F")


def picture(size=32, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


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
    pixels = torch.randint(256, (10, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = net.embed(pixels)
    assert torch.allclose(net.embed(pixels, batch=3), whole, atol=1e-5)
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert torch.allclose(net.embed(pixels), whole, atol=1e-5)
    assert net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_preprocess_of_a_tile_is_the_tile():
    image = picture()
    assert torch.equal(encoder().preprocess(image), torch.from_numpy(np.array(image)).permute(2, 0, 1))


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


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_modes_beyond_eight_bits_are_not_clipped_silently(mode):
    """PIL clips them to white; an answer for a white image would be a wrong number."""
    ramp = np.linspace(0, 65535, 32 * 32).reshape(32, 32)
    image = {
        "I;16": Image.fromarray(ramp.astype(np.uint16)),
        "I": Image.fromarray(ramp.astype(np.int32)),
        "F": Image.fromarray(ramp.astype(np.float32)),
    }[mode]
    assert image.mode == mode
    with pytest.raises(ValueError, match=f"mode '{mode}'"):
        load_image(image)


@pytest.mark.parametrize("thing", [3, None, np.zeros((32, 32, 3)), b"bytes"])
def test_what_is_no_image(thing):
    with pytest.raises(ValueError, match=f"type {type(thing).__name__}; expected a PIL image or a path"):
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
    (tmp_path / "bad.png").write_bytes({"text": b"not an image", "truncated": whole[: len(whole) // 2], "empty": b""}[content])
    with pytest.raises(ValueError, match=r"bad\.png cannot be read as an image"):
        load_image(tmp_path / "bad.png")


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
