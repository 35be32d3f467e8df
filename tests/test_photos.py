"""Photo files: which are meant, what the camera says, what a GIS gets."""

import pytest
import torch
from PIL import ExifTags, Image

from geoflow import Geolocator, photos, sphere
from geoflow.data import towns
from geoflow.encoders import load_image


def save(file, exif=None, size=(8, 6)):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 10, 10)).save(file, exif=Image.Exif() if exif is None else exif)
    return file


def with_gps(lat, lon):
    exif = Image.Exif()
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    for value, tag, ref, sides in (
        (lat, ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLatitudeRef, "NS"),
        (lon, ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSLongitudeRef, "EW"),
    ):
        minutes = abs(value) % 1 * 60
        gps[tag] = (float(int(abs(value))), float(int(minutes)), minutes % 1 * 60)
        gps[ref] = sides[value < 0]
    return exif


def test_files_folders_and_patterns(tmp_path):
    a, b, c = (save(tmp_path / name) for name in ("a.jpg", "trip/b.PNG", "trip/deep/c.webp"))
    (tmp_path / "trip" / "notes.txt").write_text("no image")
    assert photos.find([a]) == [a]
    assert photos.find([tmp_path]) == [a, b, c]
    assert photos.find([str(tmp_path / "trip" / "*.PNG"), b]) == [b]
    with pytest.raises(FileNotFoundError, match=r"no image file at .*nothing"):
        photos.find([tmp_path / "nothing*"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no image file in .*empty"):
        photos.find([tmp_path / "empty"])


def test_results_of_equal_names_do_not_overwrite_each_other(tmp_path):
    assert list(
        photos.stems(
            [tmp_path / "a.jpg", tmp_path / "x" / "a.jpg", tmp_path / "a.png", tmp_path / "b.png"]
        )
    ) == [
        "a",
        "a-2",
        "a-3",
        "b",
    ]


@pytest.mark.parametrize(
    ("lat", "lon"), [(48.8584, 2.2945), (-33.8568, 151.2153), (-22.9519, -43.2105)]
)
def test_the_camera_says_where_it_was(lat, lon, tmp_path):
    found = photos.exif_latlon(save(tmp_path / "photo.jpg", with_gps(lat, lon)))
    assert found == pytest.approx((lat, lon), abs=1e-4)


def test_a_camera_that_says_nothing_or_nonsense(tmp_path):
    assert photos.exif_latlon(save(tmp_path / "plain.jpg")) is None
    assert photos.exif_latlon(save(tmp_path / "nonsense.jpg", with_gps(95.0, 10.0))) is None
    (tmp_path / "text.jpg").write_text("no image")
    assert photos.exif_latlon(tmp_path / "text.jpg") is None


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
    assert (
        found["features"][4]["properties"]["nearest_town"]
        == rows[0]["nearest_town"]
        == towns.name_of(best.latlon[0])[0]
    )


def place(rank, town="Quetta"):
    return dict(
        rank=rank,
        latitude=30.2,
        longitude=67.0,
        mass=0.5,
        half_within_km=80.0,
        nearest_town=town,
        exif_km=None,
    )


ASKED = dict(model="tiles", guidance=0.0, seed=0, exif=False)


def test_a_table_goes_on_where_it_was_left(tmp_path):
    table, files = tmp_path / "places.csv", [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    first = photos.Answers(table, files, 2, **ASKED)
    assert not first.done
    first.add({"file": files[0], **place(rank)} for rank in (1, 2))
    first.add([{"file": files[1], **place(1)}])
    with table.open("a") as file:
        file.write(f"{files[1]},2,30.2")  # killed while writing
    again = photos.Answers(table, files, 2, **ASKED)
    assert again.done == {str(files[0])}
    assert table.read_text().count("a.jpg") == 2
    assert "b.jpg" not in table.read_text()
    assert not photos.Answers(table, files, 2, again=files, **ASKED).done


@pytest.mark.parametrize(("name", "value"), [("guidance", 2.0), ("exif", True)])
def test_another_question_replaces_only_the_answers_to_its_own_images(name, value, tmp_path):
    table, files = tmp_path / "places.csv", [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    first = photos.Answers(table, files, 1, **ASKED)
    for file in files:
        first.add([{"file": file, **place(1)}])
    again = photos.Answers(table, files[:1], 1, **ASKED | {name: value})
    assert not again.done
    again.add([{"file": files[0], **place(1)}])
    lines = table.read_text().splitlines()
    assert len(lines) == 3
    assert lines[1].endswith("b.jpg,1,30.2,67.0,0.5,80.0,Quetta,,tiles,0.0,0,False")
    assert lines[2].endswith(",".join(map(str, (ASKED | {name: value}).values())))


def test_another_table_is_not_overwritten(tmp_path):
    (tmp_path / "places.csv").write_text("name,price\napple,3\n")
    with pytest.raises(
        ValueError, match="other columns than file, rank, .*nothing was overwritten"
    ):
        photos.Answers(tmp_path / "places.csv", [], 1)
    assert (tmp_path / "places.csv").read_text() == "name,price\napple,3\n"
