"""Photo files: which are meant, what the camera says, what a GIS gets."""

import csv
import hashlib
import json
import os
import sys
from pathlib import Path

import forged
import pytest
import torch
from PIL import ExifTags, Image

from geoflow import Geolocator, photos, sphere
from geoflow.data import images, towns
from geoflow.encoders import load_image
from geoflow.geolocator import Places


def save(file, exif=None, size=(8, 6), color=10):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, color, 10)).save(file, exif=exif or Image.Exif())
    return file


def test_files_folders_and_patterns(tmp_path):
    a, b, c = (save(tmp_path / name) for name in ("a.jpg", "trip/b.PNG", "trip/deep/c.webp"))
    (tmp_path / "trip" / "notes.txt").write_text("no image")
    assert photos.find([a]) == photos.find(a) == photos.find(str(a)) == [a]
    assert photos.find([]) == []
    assert photos.find([tmp_path]) == [a, b, c]
    assert photos.find([str(tmp_path / "trip" / "*.PNG"), b]) == [b]
    with pytest.raises(FileNotFoundError, match=r"no image file at .*nothing"):
        photos.find([tmp_path / "nothing*"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no image file in .*empty"):
        photos.find([tmp_path / "empty"])


def test_what_cannot_be_read_in_a_folder_is_told(tmp_path, monkeypatch):
    good = save(tmp_path / "good.jpg")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nothing.jpg")
    (tmp_path / "notes").symlink_to(tmp_path / "nothing")  # no image by its name
    os.mkfifo(tmp_path / "pipe.png")
    save(tmp_path / "locked" / "hidden.jpg")
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    told = []
    assert photos.find([tmp_path], told.append) == [good]
    assert sorted(told) == [
        f"{tmp_path / 'dangling.jpg'} cannot be read: it is a link to nothing",
        f"{tmp_path / 'locked'} cannot be read: Permission denied",
        f"{tmp_path / 'pipe.png'} cannot be read: it is no regular file",
    ]


def test_what_a_shell_makes_of_a_pattern(tmp_path):
    """Of *.png: links to nothing and pipes are told, results are left out, the photos stay."""
    good, other = save(tmp_path / "good.png"), save(tmp_path / "other.png")
    (tmp_path / "dangling.png").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe.png")
    write_results(tmp_path / "result", good)
    told = []
    assert photos.find(sorted(tmp_path.glob("*.png")), told.append) == [good, other]
    assert [line.rpartition("/")[2] for line in told] == [
        "dangling.png cannot be read: it is a link to nothing",
        "pipe.png cannot be read: it is no regular file",
    ]
    for name in ("dangling.png", "pipe.png"):
        with pytest.raises(FileNotFoundError, match=rf"no image file at .*{name}"):
            photos.find([tmp_path / name])
    with pytest.raises(FileNotFoundError, match=r"no image file at .*lost\.png"):
        photos.find([good, tmp_path / "lost.png"])


@pytest.mark.parametrize("name", ["._a.jpg", "trip/._b.PNG"])
def test_what_macos_keeps_of_a_photo_is_none(name, tmp_path):
    a = save(tmp_path / "a.jpg")
    (tmp_path / "trip").mkdir()
    (tmp_path / name).write_bytes(b"\0\5\x16\7")
    told = []
    assert photos.find([tmp_path], told.append) == [a]
    assert told == []


def test_an_image_is_found_once_through_links_too(tmp_path):
    a = save(tmp_path / "a.jpg")
    (tmp_path / "again.jpg").symlink_to(a)
    (tmp_path / "loop").symlink_to(tmp_path)
    elsewhere = save(tmp_path.parent / f"{tmp_path.name}-elsewhere" / "b.jpg")
    (tmp_path / "trip").symlink_to(elsewhere.parent)
    assert photos.find([a, tmp_path, str(tmp_path / "*.jpg")]) == [a, tmp_path / "trip" / "b.jpg"]


def test_results_are_no_photos(tmp_path):
    photo = save(tmp_path / "a.jpg")
    write_results(tmp_path / "a", photo)
    save(tmp_path / "b.png")
    (tmp_path / "b.geojson").write_text('{"features": []}')  # somebody else's
    assert photos.find([tmp_path]) == [photo, tmp_path / "b.png"]
    with pytest.raises(FileNotFoundError, match="no image file at"):
        photos.find([str(tmp_path / "a*.png")])
    with pytest.raises(ValueError, match=r"a\.png was written by geoflow locate"):
        photos.find([tmp_path / "a.png"])


def write_results(stem, file, /, **asked):
    about = {"file": photos.identity(file), "sha256": photos.read(file).sha256, **ASKED, **asked}
    for result in photos.results(stem).values():
        result.write_text(json.dumps({"features": [{"properties": about}]}))


@pytest.mark.parametrize(
    "features",
    [[{"properties": {"file": "IMG_1.png"}}], [{"properties": {"file": "a.png", "sha256": "0"}}],
     [{"properties": ["file"]}], {}, [{}], "text"],
)  # fmt: skip
def test_a_photo_beside_somebody_elses_geojson_is_a_photo(features, tmp_path):
    photo = save(tmp_path / "IMG_1.png")
    (tmp_path / "IMG_1.geojson").write_text(json.dumps({"features": features}))
    for given in (tmp_path, photo, str(tmp_path / "*.png")):
        assert photos.find(given) == [photo]
    assert photos.stem_for(tmp_path, photo) == tmp_path / "IMG_1-2"


def test_every_ending_of_a_format_that_is_read_is_looked_for(tmp_path):
    assert images._reads_heic() in (True, False)  # it registers HEIC, where there is pillow-heif
    Image.init()
    formats = {*images.FORMATS, "MPO"}  # which is JPEG with a second picture
    endings = {end for end, name in Image.registered_extensions().items() if name in formats}
    assert endings - {".pfm"} <= set(photos.SUFFIXES)  # a pfm holds floating-point numbers
    found = [save(tmp_path / f"a{ending}") for ending in (".JFIF", ".jpe")]
    Image.new("RGB", (8, 6)).save(tmp_path / "b.mpo", "MPO")
    assert photos.find(tmp_path) == [*found, tmp_path / "b.mpo"]


def test_files_of_a_folder_that_are_not_looked_at_are_told(tmp_path):
    photo = save(tmp_path / "a.jpg")
    write_results(tmp_path / "a", photo)
    for name in ("notes.txt", "film.MOV", "places.csv", ".hidden", "._b.jpg", "track.geojson"):
        (tmp_path / name).write_text("{}")
    ignored = []
    assert photos.find(tmp_path, ignored=ignored.append) == [photo]
    assert [file.name for file in ignored] == ["film.MOV", "notes.txt", "track.geojson"]


def test_a_pattern_finds_what_its_folder_has(tmp_path):
    """Broken links and pipes are told; macOS's files and folders are left out."""
    good = save(tmp_path / "good.jpg")
    (tmp_path / "dangling.jpg").symlink_to("nothing")
    (tmp_path / "._good.jpg").write_bytes(b"\0\5\x16\7")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    by_pattern, by_folder = [], []
    assert photos.find(str(tmp_path / "*.jpg"), by_pattern.append) == [good]
    assert photos.find(tmp_path, by_folder.append) == [good]
    assert by_pattern == by_folder != []
    with pytest.raises(FileNotFoundError, match=r"no image file at .*d\*\.jpg"):
        photos.find(str(tmp_path / "d*.jpg"))


@pytest.mark.parametrize("given", ["", [""], ["a.jpg", ""]])
def test_an_empty_path_is_not_the_current_folder(given, tmp_path, monkeypatch):
    save(tmp_path / "a.jpg")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="an empty path; expected an image file, a folder or"):
        photos.find(given)


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="it is a pattern there")
def test_a_pattern_that_is_none_is_named():
    with pytest.raises(ValueError, match=r"no image file at q/\*\*x, and as a pattern it is not"):
        photos.find("q/**x")


def test_results_of_equal_names_do_not_overwrite_each_other(tmp_path):
    files = [save(tmp_path / name) for name in ("a.jpg", "x/a.jpg", "a.png", "b.png")]
    out = tmp_path / "out"
    out.mkdir()
    for _ in range(2):  # the second time each finds its own
        for file, name in zip(files, ("a", "a-2", "a-3", "b"), strict=True):
            assert photos.stem_for(out, file) == out / name
            write_results(out / name, file)


def test_what_somebody_else_put_there_is_not_overwritten(tmp_path):
    file = save(tmp_path / "a.png")
    assert photos.stem_for(tmp_path, file) == tmp_path / "a-2"
    (tmp_path / "a-2.tif").write_text("a scan")
    (tmp_path / "a-3.geojson").write_text("{")
    assert photos.stem_for(tmp_path, file) == tmp_path / "a-4"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("it's here.jpg", "it's here"), ("two\nlines.jpg", "two_lines"), ("caf\udce9.jpg", "caf_"), ("café.jpg", "café"), ("東京.jpg", "東京"), ("a/b:c.jpg", "b_c"),
        ("100%$x$.jpg", "100__x_"), ("a.b.jpg", "a.b"), ("x" * 240 + ".jpg", "x" * 50), (".jpg", "jpg"), ('say "hi".jpg', "say _hi_"),
        ("..jpg", "photo"), ("...jpg", "photo"), ("....jpg", "photo"), (".-.a.jpg", "a"), ("-rf.jpg", "rf"), ("--.jpg", "photo"), ("../..jpg", "photo"), ("a..jpg", "a"),
    ],
)  # fmt: skip
def test_names_of_results_are_fit_for_any_disk(name, expected, tmp_path):
    stem = photos.stem_for(tmp_path, tmp_path / name)
    assert stem.name == expected
    assert {file.resolve().parent for file in photos.results(stem).values()} == {tmp_path}


@pytest.mark.parametrize(
    ("path", "expected"), [("a b/c's.jpg", "a b/c's.jpg"), ("x\ny.jpg", "x\\ny.jpg"), ("caf\udce9.jpg", "caf\\udce9.jpg"), ("東京/é.jpg", "東京/é.jpg"), ("\x1b[2J.jpg", "\\x1b[2J.jpg"), (r"x\ny.jpg", r"x\\ny.jpg")]
)  # fmt: skip
def test_paths_are_shown_on_one_line(path, expected):
    assert photos.shown(path) == expected
    photos.shown(path).encode()


def test_a_photo_knows_its_content_place_and_camera(tmp_path):
    block = forged.exif({forged.MAKE: forged.text("Canon")}, gps=forged.gps())
    (tmp_path / "a.jpg").write_bytes(forged.jpeg(block))
    photo = photos.read(tmp_path / "a.jpg")
    assert photo.place == pytest.approx((48.8584, 2.2945), abs=1e-4)
    assert photo.no_place == ""
    assert photo.image.size == (48, 32)
    assert photo.sha256 == hashlib.sha256(forged.jpeg(block)).hexdigest()[:16]
    assert photo.unlike_tile == "it has 48 × 32 pixels; its EXIF names a camera, Canon"
    assert photos.exif_latlon(tmp_path / "a.jpg") == photo.place


def test_a_camera_that_says_nothing_or_nonsense(tmp_path, recwarn):
    assert photos.exif_latlon(save(tmp_path / "plain.jpg")) is None
    (tmp_path / "nonsense.jpg").write_bytes(
        forged.jpeg(forged.exif({}, gps=forged.gps((95, 0, 0))))
    )
    assert "latitude" in photos.read(tmp_path / "nonsense.jpg").no_place
    (tmp_path / "damaged.jpg").write_bytes(forged.jpeg(b"Exif\0\0II*\0\xff\xff\xff\x7f"))
    assert photos.read(tmp_path / "damaged.jpg").place is None
    assert not recwarn.list  # Pillow's warnings tell a user nothing
    (tmp_path / "text.jpg").write_text("no image")
    assert photos.exif_latlon(tmp_path / "text.jpg") is None
    with pytest.raises(ValueError, match=r"text\.jpg cannot be read as an image"):
        photos.read(tmp_path / "text.jpg")


@pytest.mark.parametrize(
    ("size", "block", "reason"),
    [
        ((32, 32), b"", ""), ((64, 64), b"", ""), ((20, 20), b"", ""), *((size, b"", "it has {} × {} pixels".format(*size)) for size in ((65, 65), (15, 15), (1, 1))), ((32, 31), b"", "it has 32 × 31 pixels"), ((4000, 3000), b"", "it has 4000 × 3000 pixels"),
        ((32, 32), forged.exif({forged.MODEL: forged.text("Pixel 9")}), "its EXIF names a camera, Pixel 9"), ((32, 32), forged.exif({forged.ORIENTATION: forged.short(1)}), ""),
        ((32, 32), forged.exif({}, exif={forged.EXPOSURE_TIME: forged.rationals((1, 250))}), "its EXIF names a camera, unnamed"),
    ],
)  # fmt: skip
def test_what_is_no_tile(size, block, reason, tmp_path):
    (tmp_path / "a.jpg").write_bytes(forged.jpeg(block, size))
    assert photos.read(tmp_path / "a.jpg").unlike_tile == reason


def test_photos_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    assert load_image(save(tmp_path / "turned.jpg", exif)).size == (6, 8)


def test_animations_show_their_first_frame(tmp_path):
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert load_image(tmp_path / "moving.gif").getpixel((0, 0)) == (255, 0, 0)


def test_a_gis_gets_regions_samples_and_places():
    geo = Geolocator.from_pretrained("land")
    image = Image.new("RGB", (32, 32))
    best = geo.predict(image, k=2, n=200)
    rows = photos.rows(best, camera=(48.86, 2.29))
    paris = sphere.from_latlon(torch.tensor([48.86, 2.29]).double())
    assert [row["exif_km"] for row in rows] == pytest.approx(
        sphere.distance_km(sphere.from_latlon(best.latlon[0].double()), paris).tolist(), abs=0.1
    )
    assert [row["exif_km"] for row in photos.rows(best)] == [None, None]
    assert towns.name_of(torch.tensor([[48.86, 2.29]]))[0].endswith(", FR")
    found = photos.to_geojson(
        geo.density(image, resolution=10.0), geo.sample(image, n=50, seed=0)[0], rows
    )
    kinds = [feature["geometry"]["type"] for feature in found["features"]]
    assert kinds == ["MultiPolygon"] * 3 + ["MultiPoint"] + ["Point"] * 2
    assert len(found["features"][3]["geometry"]["coordinates"]) == 50
    lon, lat = found["features"][4]["geometry"]["coordinates"]
    assert (lat, lon) == pytest.approx(tuple(best.latlon[0, 0].tolist()), abs=1e-4)
    ((town, far),) = towns.nearest(best.latlon[0, :1])
    properties = found["features"][4]["properties"]
    assert (properties["nearest_town"], rows[0]["nearest_town"]) == (town, town)
    assert properties["town_km"] == rows[0]["town_km"] == pytest.approx(far, abs=0.1)
    about = {"file": "a.jpg", "warning": "no tile"}
    marked = photos.to_geojson(geo.density(image, resolution=10.0), torch.zeros(1, 2), rows, about)
    assert all(about.items() <= feature["properties"].items() for feature in marked["features"])


def test_far_from_every_town_none_is_named():
    far = Places(torch.tensor([[[-38.0, -110.0]]]), torch.ones(1, 1), torch.ones(1, 1))
    (row,) = photos.rows(far)
    assert (row["nearest_town"], row["town_km"]) == ("", None)


# The table of answers


def place(rank):
    return dict(
        rank=rank, latitude=30.2, longitude=67.0, mass=0.5, half_within_km=80.0,
        nearest_town="N'Djamena, TD", town_km=3.2, exif_km=None,
    )  # fmt: skip


ASKED = dict(model="tiles", weights="ab12", guidance=0.0, seed=0, samples=100, exif=False)


def opened(table, k=1, mapped=False, **asked):
    return photos.Answers(table, k, mapped, **ASKED | asked)


def answer(answers, file, k=1, **more):
    answers.add(photos.read(file), [place(rank) for rank in range(1, k + 1)], warning="", **more)


@pytest.fixture
def files(tmp_path):
    return [
        save(tmp_path / "in" / name, color=i)
        for i, name in enumerate(("a.jpg", "b.jpg", 'it\'s\nodd,"so".jpg'))
    ]


def column(table, name):
    with table.open(encoding="utf-8", newline="") as lines:
        return [row[name] for row in csv.DictReader(lines)]


def test_a_table_goes_on_where_it_was_left(files, tmp_path):
    table = tmp_path / "places.csv"
    first = opened(table, k=2)
    assert not any(map(first.hold, files))
    for file in files:
        answer(first, file, k=2)
    whole = table.read_bytes()
    again = opened(table, k=2)
    assert all(map(again.hold, files))
    assert table.read_bytes() == whole
    assert column(table, "file") == [photos.identity(file) for file in files for _ in range(2)]
    assert column(table, "nearest_town") == ["N'Djamena, TD"] * 6


@pytest.mark.parametrize(
    "name", ["m\rr", "m\nr", 'm\r\n,"r"', "m\x0b\x85\u2028r", "m\udcff", "m\\r", "é, 写真"]
)
def test_a_table_goes_on_whatever_a_model_is_called(name, files, tmp_path):
    """Its names are one line in the table, so that rows stay known, also one that was cut off."""
    table = tmp_path / "places.csv"
    names = {kind: file.name for kind, file in photos.results(tmp_path / "a").items()}
    for file in files:
        answer(opened(table, k=2, model=name), file, k=2, **names)
    write_results(tmp_path / "a", files[0], model=name)
    whole = table.read_bytes()
    again = opened(table, k=2, mapped=True, model=name)
    assert again.hold(files[0])
    assert table.read_bytes() == whole
    assert len(whole.decode().splitlines()) == 1 + 2 * len(files)
    table.write_bytes(whole[:-50])
    again = opened(table, k=2, model=name)
    assert [again.hold(file) for file in files] == [True, True, False]


def test_wherever_the_writing_was_cut_off_the_last_image_is_asked_again(files, tmp_path):
    table = tmp_path / "places.csv"
    answers = opened(table, k=2)
    answer(answers, files[0], k=2)
    before = table.read_bytes()
    answer(answers, files[1], k=2)
    whole = table.read_bytes()
    for length in range(len(before), len(whole)):
        table.write_bytes(whole[:length])
        again = opened(table, k=2)
        assert [again.hold(file) for file in files] == [True, False, False]
        answer(again, files[1], k=2)
        assert table.read_bytes() == whole


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("guidance", 2.0),
        ("exif", True),
        ("weights", "cd34"),
        ("model", "plonk-yfcc"),
        ("seed", 1),
        ("samples", 50),
    ],
)
def test_another_question_replaces_an_answer_when_its_own_is_there(name, value, files, tmp_path):
    table = tmp_path / "places.csv"
    first = opened(table)
    for file in files:
        answer(first, file)
    again = opened(table, **{name: value})
    assert not any(map(again.hold, files))
    assert column(table, name) == [str(ASKED[name])] * 3  # nothing is lost before
    answer(again, files[0])
    assert column(table, "file") == list(map(photos.identity, files))
    assert column(table, name) == [str(value)] + [str(ASKED[name])] * 2


def test_a_photo_replaced_under_its_name_is_another(files, tmp_path):
    table = tmp_path / "places.csv"
    first = opened(table)
    answer(first, files[0])
    save(files[0], color=99)
    again = opened(table)
    assert not again.hold(files[0])
    answer(again, files[0])
    assert column(table, "sha256") == [photos.read(files[0]).sha256]
    again.drop(files[0])
    assert column(table, "file") == []


def test_equal_names_and_equal_contents_are_different_images(tmp_path, monkeypatch):
    x, y = (save(tmp_path / folder / "a.png") for folder in "xy")
    answers = opened(tmp_path / "places.csv")
    answer(answers, x)
    monkeypatch.chdir(tmp_path / "x")
    assert answers.hold(Path("a.png"))
    assert not answers.hold(y)
    monkeypatch.chdir(tmp_path / "y")
    assert not answers.hold(Path("a.png"))


def test_an_answer_includes_its_maps_where_they_are_wanted(files, tmp_path):
    table = tmp_path / "places.csv"
    names = {kind: file.name for kind, file in photos.results(tmp_path / "a").items()}
    answer(opened(table), files[0])
    assert not opened(table, mapped=True).hold(files[0])
    answer(opened(table), files[0], **names)
    assert not opened(table, mapped=True).hold(files[0])
    write_results(tmp_path / "a", files[0])
    assert opened(table, mapped=True).hold(files[0])
    assert column(table, "map") == ["a.png"]
    for name in names.values():
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(b"")
        assert not opened(table, mapped=True).hold(files[0])
        (tmp_path / name).unlink()
        assert not opened(table, mapped=True).hold(files[0])
        (tmp_path / name).write_bytes(content)
    assert opened(table, mapped=True).hold(files[0])
    (tmp_path / "a.tif").unlink()
    assert opened(table).hold(files[0])


@pytest.mark.parametrize(
    ("name", "value"), [("seed", 1), ("guidance", 2.0), ("model", "plonk-yfcc"), ("samples", 50), ("sha256", "0"), ("file", "b.jpg")]
)  # fmt: skip
def test_files_of_another_question_are_no_answer(name, value, files, tmp_path):
    names = {kind: file.name for kind, file in photos.results(tmp_path / "a").items()}
    answer(opened(tmp_path / "places.csv"), files[0], **names)
    write_results(tmp_path / "a", files[0], **{name: value})
    assert not opened(tmp_path / "places.csv", mapped=True).hold(files[0])
    write_results(tmp_path / "a", files[0])
    assert opened(tmp_path / "places.csv", mapped=True).hold(files[0])


def test_names_that_differ_by_a_backslash_are_different_images(tmp_path):
    table, names = tmp_path / "places.csv", ("a\nb.jpg", r"a\nb.jpg", r"a\\nb.jpg")
    odd = [save(tmp_path / "in" / name, color=7) for name in names]
    answers = opened(table)
    for file in odd:
        answer(answers, file)
    assert len(set(column(table, "file"))) == 3
    assert all(map(opened(table).hold, odd))
    assert photos.identity(odd[0]) == str(tmp_path / "in" / r"a\nb.jpg")


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("30.2", "nan", "the latitude is 'nan', expected a finite number"), ("30.2", "north", "the latitude is 'north'"), ("67.0", "-inf", "the longitude is '-inf'"), ("67.0", "", "the longitude is ''"),
        (",0.5,", ",NaN,", "the mass is 'NaN'"), (",1,", ",,", "the rank is ''"), ("3.2", "near", "the town_km is 'near'"), ("tiles", "ti\0les", "it holds NUL bytes"),
    ],
)  # fmt: skip
def test_damaged_rows_are_told_and_asked_again(before, after, told, files, tmp_path):
    table, lines = tmp_path / "places.csv", []
    first = opened(table, k=2)
    for file in files:
        answer(first, file, k=2)
    header, damaged, *others = table.read_text(encoding="utf-8").splitlines(keepends=True)
    changed = damaged.replace(before, after, 1)
    assert changed != damaged
    table.write_text("".join([header, changed, *others]), encoding="utf-8")
    again = opened(table, k=2, told=lines.append)
    (line,) = lines
    assert line.startswith(f"{table}: of 1 damaged row the first: {told}")
    assert line.endswith("; what they answered is asked again")
    assert [again.hold(file) for file in files] == [False, True, True]
    answer(again, files[0], k=2)
    assert table.read_text(encoding="utf-8") == "".join([header, damaged, *others])
    assert all(map(opened(table, k=2, told=lines.append).hold, files))
    assert len(lines) == 1


OLD = (
    "file,rank,latitude,longitude,mass,half_within_km,nearest_town,exif_km,model,guidance,seed,exif"
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name,price\napple,3\n", "other columns than this version's file, sha256, .*nothing was overwritten: choose another --out"),
        (f"{OLD}\na.jpg,1,2,3,4,5,6,7,8,9,0,1\n".encode(), "other columns than this version's"),
        ((",".join(photos.COLUMNS) + "\na.jpg,1\n").encode(), "damaged: row 2 has not 20 columns"),
        ((",".join(photos.COLUMNS) + "\n" + "1," * 20 + "1\n").encode(), "damaged: row 2"),
        (b"file,caf\xe9\n", "damaged: .*utf-8"),
        (b'file,"sha\n', "damaged"),
    ],
)  # fmt: skip
def test_another_table_is_not_overwritten(content, message, tmp_path):
    (tmp_path / "places.csv").write_bytes(content)
    with pytest.raises(ValueError, match=rf"places\.csv (has|is) {message}"):
        opened(tmp_path / "places.csv")
    assert (tmp_path / "places.csv").read_bytes() == content
