"""Charts: the points of a loss curve are drawn, and a figure's file is whole or as it was."""

from io import BytesIO

import pytest
from drawn import check_texts_are_inside
from matplotlib.figure import Figure
from PIL import Image

from geoflow.viz import charts


def test_loss_curves_have_every_point_and_their_levels():
    encoder = {"loss": [(0, 3.0), (10, 2.0)], "val_loss": [(10, 2.5)]}
    flow = {"loss": [(0, 1.0)], "val_loss": []}
    units = {"encoder": "nats", "flow": "squared error"}
    figure = charts.losses_figure({"encoder": encoder, "flow": flow}, units, {"flow": 2.9})
    check_texts_are_inside(figure, "losses_figure")
    left, right = figure.axes
    drawn = {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in left.lines}
    assert drawn == {"training batch": encoder["loss"], "validation": encoder["val_loss"]}
    curve, level = right.lines
    assert list(zip(*curve.get_data(), strict=True)) == flow["loss"]
    assert set(level.get_ydata()) == {2.9}
    assert [ax.get_ylabel() for ax in (left, right)] == list(units.values())


def test_a_figure_is_saved_whole_or_not_at_all(tmp_path, monkeypatch):
    figure, file = Figure(figsize=(2, 1)), tmp_path / "figure.png"
    charts.save_figure(figure, file, dpi=50)
    with Image.open(file) as image:
        assert (image.size, image.mode, image.getpixel((0, 0))) == (
            (100, 50),
            "RGB",
            (255, 255, 255),
        )
    before = file.read_bytes()

    save = Image.Image.save

    def interrupted(self, target, *how, **options):
        if isinstance(target, BytesIO):  # matplotlib's own
            return save(self, target, *how, **options)
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        charts.save_figure(figure, file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]
