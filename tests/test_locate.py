"""`geoflow locate` as a photographer uses it: which answer belongs to which photo, what is told, what an interruption leaves."""

import csv
import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import forged
import pytest
import rasterio
import torch
from PIL import Image
from small import model as make
from small import picture

from geoflow import Geolocator, cli, photos, sphere
from geoflow.cli import photos as commands
from geoflow.data import tiles
from geoflow.density import density_map
from geoflow.encoders import PhotoEncoder, TileEncoder

PHOTO = forged.exif({forged.MAKE: forged.text("Canon")}, gps=forged.gps())


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two small models: one was trained on satellite tiles, one on photos through the same encoder."""
    folder, found = tmp_path_factory.mktemp("models"), {}
    for name, recipe in (("tiles", {"tiles": 300}), ("photos", {"optimization": {}})):
        geo = make()
        geo.provenance = {"recipe": recipe}
        found[name] = geo.save_pretrained(folder / name)
    return found


@functools.cache
def flat_density():
    """In place of a map's seconds; those of real models are tested in `test_cli`."""
    uniform = torch.tensor(sphere.LOG_UNIFORM)
    return density_map(lambda x: uniform.expand(len(x)), sphere.uniform(1000), 10.0)


@pytest.fixture
def locate(models, tmp_path, monkeypatch, capsys):
    """A command in this process and in an empty folder: its exit status and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Geolocator, "density", lambda self, **how: flat_density())

    def command(*arguments, model="tiles", maps=False):
        options = ("--model", models[model], "--samples", 20, "--k", 2, "--out", "out")
        monkeypatch.setattr(
            sys,
            "argv",
            [
                "geoflow",
                "locate",
                *map(str, options),
                *([] if maps else ["--no-maps"]),
                *map(str, arguments),
            ],
        )
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return (ended.value.code or 0, *capsys.readouterr())

    return command


def save(file, data=None, seed=0):
    file.parent.mkdir(parents=True, exist_ok=True)
    if data is None:
        picture(32, seed).save(file)
    else:
        file.write_bytes(data)
    return file


def table(folder):
    with (folder / "out" / "places.csv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_every_answer_is_its_own_photos(locate, models, tmp_path):
    """x/a.png, y/a.png, x/a.png again, and x/a.png replaced: into one folder, from one place."""
    x, y = save(tmp_path / "x" / "a.png", seed=1), save(tmp_path / "y" / "a.png", seed=2)
    geo = Geolocator.from_pretrained(models["tiles"])

    def expected(file):
        return geo.predict(file, k=2, n=20).latlon[0, 0].tolist()

    def found():
        rows = table(tmp_path)
        assert [row["rank"] for row in rows] == ["1", "2"] * (len(rows) // 2)
        return {row["file"]: row for row in rows if row["rank"] == "1"}

    for arguments in ("x/a.png", "y/a.png", "x/a.png", "y/../x/a.png"):
        assert locate(arguments, maps=True)[0] == 0
    rows = found()
    assert set(rows) == {str(x), str(y)}
    for file, name in ((x, "a"), (y, "a-2")):
        row = rows[str(file)]
        assert [float(row[column]) for column in ("latitude", "longitude")] == pytest.approx(
            expected(file), abs=1e-2
        )
        assert [row[column] for column in photos.RESULTS] == [
            f"{name}.png",
            f"{name}.geojson",
            f"{name}.tif",
        ]
        collection = json.loads((tmp_path / "out" / f"{name}.geojson").read_text(encoding="utf-8"))
        point = next(
            feature for feature in collection["features"] if feature["properties"].get("rank") == 1
        )
        about = {"file": str(file), "model": str(models["tiles"]), "samples": 20, "seed": 0}
        assert about.items() <= point["properties"].items()
        with (
            rasterio.open(tmp_path / "out" / f"{name}.tif") as raster,
            Image.open(tmp_path / "out" / f"{name}.png") as figure,
        ):
            for text in (raster.tags()["source"], figure.text["source"]):
                assert about.items() <= json.loads(text).items()
        assert point["geometry"]["coordinates"][::-1] == pytest.approx(expected(file), abs=1e-2)
    before = (tmp_path / "out" / "a.geojson").read_bytes()
    save(x, seed=3)
    status, out, _ = locate("x/a.png", "y/a.png", maps=True)
    assert (status, "2 images, 1 answered before" in out) == (0, True)
    assert float(found()[str(x)]["latitude"]) == pytest.approx(expected(x)[0], abs=1e-2)
    assert found()[str(x)]["map"] == "a.png"
    assert (tmp_path / "out" / "a.geojson").read_bytes() != before
    assert sorted(
        file.suffix for file in (tmp_path / "out").iterdir() if "a" in file.stem
    ) == sorted([".png", ".geojson", ".tif"] * 2 + [".csv"])


def test_results_beside_the_photos_overwrite_none_and_are_not_asked(locate, tmp_path):
    a = save(tmp_path / "in" / "a.png")
    before = a.read_bytes()
    for count in ("1 image\n", "1 image, 1 answered before\n"):
        status, out, err = locate("in", "--out", "in", maps=True)
        assert (status, err) == (0, "")
        assert out.startswith(count)
    assert a.read_bytes() == before
    assert {file.name for file in (tmp_path / "in").iterdir()} == {
        "a.png",
        "a-2.png",
        "a-2.geojson",
        "a-2.tif",
        "places.csv",
        ".lock",
    }


@pytest.mark.parametrize("changed", [("--seed", 1), ("--guidance", 1.5), "photo", "model"])
@pytest.mark.parametrize("written", ["geojson", "geotiff"])
def test_an_interrupted_answer_is_not_taken_for_another_questions(
    changed, written, locate, models, tmp_path, monkeypatch
):
    """Whatever it had written, the first question asked again gets its own files."""
    a, out = save(tmp_path / "a.png"), tmp_path / "out"
    first = a.read_bytes()
    other = changed if isinstance(changed, tuple) else ()
    other += ("--model", models["photos"]) if changed == "model" else ()
    assert locate("a.png", maps=True)[0] == 0
    files = [out / f"a{ending}" for ending in (".geojson", ".tif", ".png")]
    answered, before = table(tmp_path), [file.read_bytes() for file in files]

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if written == "geojson":
            patch.setattr("geoflow.density.DensityMap.to_geotiff", interrupted)
        else:
            patch.setattr("geoflow.viz.charts.save_figure", interrupted)
        if changed == "photo":
            save(a, seed=5)
        assert locate("a.png", *other, maps=True)[0] == 130
    assert files[0].read_bytes() != before[0]
    assert table(tmp_path) == []
    a.write_bytes(first)
    assert locate("a.png", maps=True)[1].startswith("1 image\n")
    assert table(tmp_path) == answered
    assert files[0].read_bytes() == before[0]


def test_an_interruption_before_the_first_file_keeps_the_former_answer(
    locate, tmp_path, monkeypatch
):
    save(tmp_path / "a.png")
    assert locate("a.png", maps=True)[0] == 0
    before = table(tmp_path)

    def interrupted(self, **_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Geolocator, "density", interrupted)
        assert locate("a.png", "--seed", 1, maps=True)[0] == 130
    assert table(tmp_path) == before
    assert locate("a.png", maps=True)[1].startswith("1 image, 1 answered before\n")


def test_no_result_leaves_the_folder(locate, tmp_path):
    save(tmp_path / "plain.png").rename(tmp_path / "..png")
    before = {file.name for file in tmp_path.iterdir()}
    assert locate("..png", "--out", "in/out", maps=True)[0] == 0
    assert {file.name for file in tmp_path.iterdir()} == before | {"in"}
    assert [file.name for file in (tmp_path / "in").iterdir()] == ["out"]
    assert {file.stem for file in (tmp_path / "in" / "out").glob("p*")} == {"photo", "places"}


def test_files_that_are_not_looked_at_are_counted(locate, tmp_path):
    save(tmp_path / "in" / "a.png")
    for name in ("b.MOV", "c.txt", "d.txt", "README", ".hidden"):
        save(tmp_path / "in" / name, b"no image")
    for count in ("1 image\n", "1 image, 1 answered before\n"):
        status, out, err = locate("in", "--out", "in", maps=True)
        assert (status, err) == (0, "")
        line = "4 other files not looked at, by the ending: .mov, .txt, none\n"
        assert out.startswith(line + count)


def test_damaged_rows_of_the_table_are_told(locate, tmp_path):
    save(tmp_path / "a.png")
    locate("a.png")
    before = table(tmp_path)
    text = (tmp_path / "out" / "places.csv").read_text(encoding="utf-8")
    damaged = text.replace(before[0]["latitude"], "nan", 1)
    (tmp_path / "out" / "places.csv").write_text(damaged, encoding="utf-8")
    status, out, err = locate("a.png")
    assert (status, out.startswith("1 image\n")) == (0, True)
    assert err.startswith("geoflow: out/places.csv: of 1 damaged row the first: the latitude is 'n")
    assert table(tmp_path) == before


@pytest.mark.parametrize(
    "arguments", [("",), ("a.png", ""), ("a.png", "--out", ""), ("a.png", "--out=")]
)
def test_an_empty_path_is_refused(arguments, locate, tmp_path):
    """As a shell hands it over where a variable is not set."""
    save(tmp_path / "a.png")
    message = "geoflow: an empty path; expected a file or a folder (is a variable unset?)\n"
    assert locate(*arguments) == (1, "", message)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_a_photo_and_the_tile_model(locate, tmp_path):
    save(tmp_path / "in" / "photo.jpg", forged.jpeg(PHOTO, (64, 48)))
    save(tmp_path / "in" / "tile.png")
    status, out, err = locate("in", maps=True)
    assert status == 0
    assert (
        out.count(
            "NOT A SATELLITE TILE, SO THE ANSWER MEANS NOTHING: it has 64 × 48 pixels; its EXIF names a camera, Canon"
        )
        == 1
    )
    warning = "WARNING: not a satellite tile: 1 of 2 images. "
    for run in (err, locate("in", maps=True)[2]):  # what was answered before is no better
        assert warning in run
        assert "--model plonk-yfcc" in run
    assert "not a satellite tile: 1 of 1 image. " in locate("in/photo.jpg")[2]
    assert [bool(row["warning"]) for row in table(tmp_path)] == [True, True, False, False]
    for name, warned in (("photo", True), ("tile", False)):
        collection = json.loads((tmp_path / "out" / f"{name}.geojson").read_text(encoding="utf-8"))
        assert {bool(feature["properties"]["warning"]) for feature in collection["features"]} == {
            warned
        }
    status, out, err = locate("in", model="photos")
    assert (status, err) == (0, "")
    assert "SATELLITE" not in out
    assert not any(row["warning"] for row in table(tmp_path))


def test_the_warning_is_on_the_map(locate, tmp_path, monkeypatch):
    from geoflow.viz import charts

    titles = []
    monkeypatch.setattr(
        charts,
        "save_figure",
        lambda figure, file, **_: titles.append(figure.axes[0].title) or file.write_bytes(b""),
    )
    save(tmp_path / "in" / "costs $5 or $6.jpg", forged.jpeg(size=(640, 427)))
    save(tmp_path / "in" / "tile.png")
    assert locate("in", maps=True)[0] == 0
    photo, tile = titles
    assert photo.get_text().endswith(": NOT A SATELLITE TILE, SO THE ANSWER MEANS NOTHING")
    assert photo.get_text().startswith(r"costs \$5 or \$6.jpg")
    assert photo.get_color() == "crimson" != tile.get_color()
    assert tile.get_text() == "tile.png"


def test_odd_names(locate, tmp_path):
    names = [
        "it's ours.png",
        "two\nlines.png",
        "caf\udce9.png",
        'a, "b".png',
        "$x$.png",
        "東京.png",
        "100%.png",
        "-rf.png",
    ]
    for name in names:
        save(tmp_path / "in" / "plain.png").rename(tmp_path / "in" / name)
    for before in ("", ", 8 answered before"):
        status, out, err = locate("in")
        assert (status, err) == (0, "")
        assert out.startswith(f"8 images{before}\n")
        out.encode()
    files = [row["file"] for row in table(tmp_path)]
    assert sorted(files[::2]) == sorted(photos.identity(tmp_path / "in" / name) for name in names)
    odd = "-$x\n\udce9東%$.png"
    save(tmp_path / "plain.png").rename(tmp_path / odd)
    status, out, err = locate(f"./{odd}", maps=True)
    assert (status, err) == (0, "")
    name = table(tmp_path)[-1]["map"]
    assert name == "_x__東__.png"
    assert (tmp_path / "out" / name).stat().st_size > 1000


def test_bad_photos_and_entries_are_named_and_counted(locate, tmp_path):
    for number, damaged in enumerate((forged.jpeg()[:-100], b"<html>404</html>")):
        save(tmp_path / "in" / f"bad{number}.jpg", damaged)
    save(tmp_path / "in" / "empty.png", b"")
    save(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "dangling.jpg").symlink_to("nowhere")
    status, _, err = locate("in")
    assert status == 1
    for name in (
        "bad0.jpg cannot",
        "bad1.jpg cannot",
        "empty.png cannot",
        "dangling.jpg cannot be read: it is a link to nothing",
    ):
        assert err.count(name) == 1
    assert err.splitlines()[-1] == "geoflow: 4 of 5 images could not be read"
    assert locate("in/bad0.jpg")[2].endswith("\ngeoflow: 1 of 1 image could not be read\n")
    assert len(err.splitlines()) == 5
    assert [row["file"] for row in table(tmp_path)] == [str(tmp_path / "in" / "good.png")] * 2


def test_a_folder_of_dangling_links(locate, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "odd\nname.jpg").symlink_to("nowhere")
    status, _, err = locate("in")
    assert status == 1
    link, folder = err.splitlines()
    assert link == r"geoflow: in/odd\nname.jpg cannot be read: it is a link to nothing"
    assert folder.startswith("geoflow: no image file in in; expected one that ends in .jpg")


def test_an_image_that_became_unreadable_loses_its_answer(locate, tmp_path):
    a = save(tmp_path / "a.png")
    locate("a.png")
    a.write_bytes(b"")
    status, _, err = locate("a.png")
    assert status == 1
    assert "a.png cannot be read as an image" in err
    assert table(tmp_path) == []


def test_a_locked_photo_is_told_and_keeps_its_answer(locate, tmp_path, monkeypatch):
    """Also among the files that a shell makes of a pattern, where typer would refuse them all."""
    save(tmp_path / "a.png", seed=1)
    b = save(tmp_path / "b.png", seed=2)
    locate("a.png")
    before = table(tmp_path)

    def locked(function):
        def refusing(file, *rest, **options):
            if file.name == "a.png":
                raise PermissionError(13, "Permission denied", str(file))
            return function(file, *rest, **options)

        return refusing

    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda file, mode, **_: Path(file).name != "a.png")
        patch.setattr(Path, "open", locked(Path.open))
        patch.setattr(Path, "read_bytes", locked(Path.read_bytes))
        status, _, err = locate("a.png", "b.png")
    assert status == 1
    assert err == (
        "geoflow: a.png cannot be read: Permission denied\n"
        "geoflow: 1 of 2 images could not be read\n"
    )
    assert table(tmp_path)[:2] == before
    assert [row["file"] for row in table(tmp_path)[2:]] == [str(b)] * 2
    assert locate("a.png", "b.png")[1].startswith("2 images, 2 answered before")


def test_the_cameras_place_and_why_there_is_none(locate, tmp_path):
    save(tmp_path / "a.jpg", forged.jpeg(PHOTO))
    save(tmp_path / "b.jpg", forged.jpeg(forged.exif({}, gps=forged.gps(north=None))))
    status, out, _ = locate("a.jpg", "b.jpg", "--exif", model="photos")
    assert status == 0
    assert "the camera did not say where it was: its EXIF data have the latitude" in out
    assert "expected north or south" in out
    rows = table(tmp_path)
    place = sphere.from_latlon(torch.tensor([48.8584, 2.2945]).double())
    for row in rows[:2]:
        answer = sphere.from_latlon(
            torch.tensor([float(row["latitude"]), float(row["longitude"])]).double()
        )
        assert float(row["exif_km"]) == pytest.approx(
            float(sphere.distance_km(place, answer)), abs=0.2
        )
    assert [row["exif_km"] for row in rows[2:]] == ["", ""]


def test_towns_come_with_their_distance(locate, tmp_path):
    row = dict(
        latitude=-75.0,
        longitude=166.7,
        mass=0.5,
        half_within_km=80.0,
        exif_km=None,
        nearest_town="McMurdo Station, AQ",
        town_km=316.9,
    )
    assert (
        commands._sentence(row)
        == " 50.0%   75.0°S 166.7°E  half within 80 km; 317 km from McMurdo Station, AQ"
    )
    assert commands._sentence(row | {"nearest_town": "", "town_km": None}).endswith(
        "; no town within 500 km"
    )


def test_the_first_image_tells_how_long_the_others_take_and_those_go_in_batches(
    locate, tmp_path, monkeypatch
):
    sizes, embed = [], TileEncoder.embed
    monkeypatch.setattr(
        TileEncoder,
        "embed",
        lambda self, images, *rest: sizes.append(len(images)) or embed(self, images, *rest),
    )
    for number in range(10):
        save(tmp_path / "in" / f"{number}.png", seed=number)
    status, out, _ = locate("in")
    assert (status, sizes) == (0, [1, 8, 1])
    lines = out.splitlines()
    assert [line for line in lines if line.startswith("in/")] == [
        f"in/{number}.png" for number in range(10)
    ]
    (about,) = [line for line in lines if line.startswith("about ")]
    assert about.endswith(" for the other 9")
    assert lines.index(about) < lines.index("in/1.png")


def test_a_model_trained_anew_under_its_name_is_asked_again(locate, models, tmp_path):
    save(tmp_path / "a.png")
    locate("a.png", "--model", models["tiles"])
    geo = make(seed=5)
    geo.save_pretrained(tmp_path / "m")
    for count in ("1 image\n", "1 image, 1 answered before\n"):
        assert locate("a.png", "--model", "m")[1].startswith(count)
    make(seed=6).save_pretrained(tmp_path / "m")
    assert locate("a.png", "--model", "m")[1].startswith("1 image\n")
    assert len(table(tmp_path)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--k", "0"), "--k 0; expected at least 1"), (("--k", "30"), "--samples 20; expected at least --k 30"), (("--samples", "0"), "--samples 0; expected at least --k 2"), (("--samples", 10**11), "--samples 100000000000; expected at least --k 2, at most 1,000,000"),
        *((("--out", out), f"--out {out} is a file, or below one; expected a folder") for out in ("a.png", "a.png/b", "/dev/null")), (("--out", "o" * 300), f"--out {'o' * 300} cannot be written: File name too long"), (("--out", "/proc/o"), "--out /proc/o cannot be written"),
        (("--model", "land"), "model land looks at no image"), (("--model", "photos"), "unknown model 'photos'"), (("--guidance", "nan"), "--guidance nan; expected a finite number"), (("--guidance", "inf"), "--guidance inf; expected"), (("--seed", "-1"), "--seed -1; expected a whole number from 0 to 4,294,967,295"), (("--seed", -(10**26)), f"--seed {-(10**26)}; expected"), (("nothing.jpg",), "no image file at nothing.jpg"),
    ],
)  # fmt: skip
def test_bad_arguments_are_told_in_one_line(arguments, message, locate, tmp_path):
    save(tmp_path / "a.png")
    status, _, err = locate("a.png", *arguments)
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith(f"geoflow: {message}")
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("model", "guidance", "message"),
    [
        ("tiles-vmf", 2, "guidance of 2.0 with method 'vmf', which has none; expected 0"),
        ("tiles-flow-map", 9, "guidance of 9 with method 'flow-map'; expected 0 to 4"),
    ],
)
def test_guidance_that_a_model_cannot_have_is_refused_before_any_work(
    model, guidance, message, locate, tmp_path, monkeypatch
):
    monkeypatch.setattr(TileEncoder, "embed", lambda *_: pytest.fail("an image was embedded"))
    save(tmp_path / "a.png")
    status, out, err = locate("a.png", "--model", model, "--guidance", guidance)
    assert (status, out) == (1, "")
    assert err.startswith(f"geoflow: {message}")
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_a_missing_extra_is_told_in_one_line(locate, tmp_path, monkeypatch):
    def lacks(*_):
        monkeypatch.setitem(sys.modules, "transformers", None)
        return PhotoEncoder("dinov2").load()

    monkeypatch.setattr(commands, "_model", lacks)
    save(tmp_path / "a.png")
    assert locate("a.png") == (
        1,
        "",
        "geoflow: encoder 'dinov2' needs the extra 'photos': pip install transformers\n",
    )


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(locate, tmp_path, monkeypatch):
    for name in "abc":
        save(tmp_path / "in" / f"{name}.png", seed=ord(name))
    answer = commands._answer

    def interrupted(question, photo, cond):
        if photo.file.name == "b.png":
            raise KeyboardInterrupt
        return answer(question, photo, cond)

    with monkeypatch.context() as patch:
        patch.setattr(commands, "_answer", interrupted)
        status, _, err = locate("in")
    assert status == 130
    assert err.startswith("geoflow: interrupted; out/places.csv holds the answers for 1 image. ")
    assert err.endswith(". To go on: " + " ".join(sys.argv) + "\n")
    status, out, _ = locate("in")
    assert (status, "3 images, 1 answered before" in out, len(table(tmp_path))) == (0, True, 6)


def test_a_full_disk_says_what_is_kept(locate, tmp_path, monkeypatch):
    for name in "ab":
        save(tmp_path / "in" / f"{name}.png", seed=ord(name))
    add = photos.Answers.add

    def full(self, photo, places, **more):
        if photo.file.name == "b.png":
            raise OSError(28, "No space left on device")
        add(self, photo, places, **more)

    with monkeypatch.context() as patch:
        patch.setattr(photos.Answers, "add", full)
        status, _, err = locate("in")
    assert (status, err.count("\n")) == (1, 1)
    assert "No space left on device; out/places.csv holds the answers for 1 image" in err
    assert locate("in")[1].startswith("2 images, 1 answered before")


# Several processes


def start(models, *arguments, encoding="utf-8"):
    command = (
        sys.executable,
        "-m",
        "geoflow",
        "locate",
        *arguments,
        "--model",
        models["tiles"],
        "--out",
        "out",
        "--k",
        "2",
        "--no-maps",
    )
    return subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding=encoding,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    pytest.fail("it did not happen within a minute")


@pytest.mark.slow
def test_one_run_claims_a_folder_and_a_killed_one_leaves_it(locate, models, tmp_path):
    for number in range(40):
        save(tmp_path / "in" / f"{number:02d}.png", seed=number)
    first = start(models, "in", "--samples", "4000")
    try:
        wait_for(lambda: (tmp_path / "out" / "places.csv").exists() and len(table(tmp_path)) >= 4)
        status, _, err = locate("in")
        assert status == 1
        assert (
            err
            == "geoflow: another geoflow command writes to out; wait for it, or choose another folder\n"
        )
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    status, *_ = locate("in")
    assert status == 0
    rows = table(tmp_path)
    assert len(rows) == 80
    assert len({(row["file"], row["rank"]) for row in rows}) == 80


@pytest.mark.slow
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_says_what_is_kept(number, expected, models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i in range(40):
        save(tmp_path / "in" / f"{i:02d}.png", seed=i)
    run = start(models, "in", "--samples", "4000")
    wait_for(lambda: (tmp_path / "out" / "places.csv").exists() and len(table(tmp_path)) >= 4)
    run.send_signal(number)
    _, err = run.communicate()
    assert run.returncode == expected
    answered = len(table(tmp_path)) // 2
    assert f"out/places.csv holds the answers for {answered} images. To go on: geoflow" in err


@pytest.mark.slow
def test_a_terminal_of_windows_letters(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "in" / "東京.png")
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")
    monkeypatch.setenv("PYTHONUTF8", "0")
    run = start(models, "in", encoding="cp1252")
    out, err = run.communicate()
    assert (run.returncode, err) == (0, "")
    assert "in/??.png" in out
    assert [row["file"] for row in table(tmp_path)] == [str(tmp_path / "in" / "東京.png")] * 2


def test_tiles_as_they_are_saved_are_tiles(tmp_path):
    tiles.tile(12, 50.5).save(tmp_path / "coast.png")
    assert photos.read(tmp_path / "coast.png").unlike_tile == ""
    Image.new("RGB", (512, 512)).save(tmp_path / "photo.png")
    assert photos.read(tmp_path / "photo.png").unlike_tile == "it has 512 × 512 pixels"
