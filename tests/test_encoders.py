"""Encoders: any image in, the same embedding whatever its container."""

from types import SimpleNamespace

import numpy as np
import official
import pytest
import torch
from PIL import Image
from small import picture

from geoflow import Geolocator, encoders, sphere
from geoflow.encoders import TileEncoder
from geoflow.training.modules import GeocellClassifier
from geoflow.velocity import VelocityTransformer


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


@pytest.mark.parametrize("size", [(201, 1), (20_000, 3)])
def test_a_strip_would_fill_the_memory(size):
    with pytest.raises(
        ValueError, match=f"{size[0]} × {size[1]} pixels; expected sides of at most 200 to 1"
    ):
        encoders.PhotoEncoder("streetclip").preprocess(picture(size))


def test_weights_that_cannot_be_had(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    net = encoders.PhotoEncoder("dinov2", tmp_path / "empty")
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
    monkeypatch.setattr(encoders, "hub_is_silent", encoders.hub_is_silent.__wrapped__)
    asked = {}
    monkeypatch.setattr(
        transformers.CLIPVisionModel,
        "from_pretrained",
        lambda source, **how: asked.update(how) or refuses(),
    )
    with pytest.raises(
        ConnectionError,
        match=f"encoder 'streetclip' could not be read from {said}: it is not in the cache, and the hub gives no answer; .*--weights",
    ):
        encoders.PhotoEncoder("streetclip", source).load()
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
