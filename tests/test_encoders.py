"""Encoders: any image in, the same embedding whatever its container."""

import numpy as np
import pytest
import torch
from PIL import Image
from small import picture

from geoflow import encoders, sphere
from geoflow.encoders import TileEncoder
from geoflow.training.modules import GeocellClassifier


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


def test_images_in_place_of_pixels():
    """`embed` takes what `preprocess` takes: one image, a list, one array or several in one."""
    net, images = encoder(), [picture(40, seed) for seed in range(3)]
    expected = net.embed(torch.stack([net.preprocess(image) for image in images]))
    arrays = np.stack([np.asarray(image) for image in images])
    for given in (images, tuple(images), list(arrays), arrays, torch.from_numpy(arrays)):
        assert torch.equal(net.embed(given), expected)
    for given in (images[0], [images[0]], arrays[0], torch.from_numpy(arrays[0])):
        assert torch.allclose(net.embed(given), expected[:1], atol=1e-5)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.zeros(2, 3, 32, 32), r"shape \(3, 32, 32\) and type float32; expected \(H, W, 3\)"),
        (torch.zeros(2, 3, 16, 16, dtype=torch.uint8), r"shape \(3, 16, 16\).*permute\(1, 2, 0\)"),
        ([], "an empty list of images"),
        (np.zeros((0, 8, 8, 3), np.uint8), "an empty list of images"),
        (None, "an image of type NoneType"),
    ],
)
def test_pixels_of_another_encoder_are_refused(pixels, message):
    with pytest.raises(ValueError, match=message):
        encoder().embed(pixels)


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


def test_an_encoder_that_overflows_is_an_error():
    net = encoder()
    with torch.no_grad():
        net.body[0][1].running_var.fill_(-1.0)
    pixels = torch.full((3, 3, 32, 32), 200, dtype=torch.uint8)
    with pytest.raises(FloatingPointError, match="3 of 3 embeddings are not finite; the weights"):
        net.embed(pixels)
