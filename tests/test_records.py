"""Readers of located images: what they find in small copies of the real layouts, and what they say of spoilt ones."""

import gzip
import zipfile

import pyarrow as pa
import pyarrow.parquet
import pytest
import synthetic
import torch

from geoflow.data import inat21, osv5m, yfcc
from geoflow.data.records import Records, clean, read_table, read_tars


def places(seed, n):
    return torch.tensor([[lat, lon] for lat, lon, _jpg in synthetic.pictures(n, seed)])


@pytest.mark.parametrize("zipped", [True, False])
def test_osv5m(tmp_path, zipped):
    root = synthetic.osv5m(tmp_path, zipped=zipped)
    records = osv5m.read(root, "test")
    assert str(records) == "osv5m test: 20 listed; 20 usable"
    assert torch.allclose(records.latlon.float(), places(5_000_000, 20))
    row = records.rows.slice(3, 1).to_pylist()[0]
    assert (row["country"], row["region"], row["city"]) == ("CL", "Chatham Islands_NZ", None)
    assert records.read(row["path"]) == synthetic.pictures(20, 5_000_000)[3][2]


def test_osv5m_of_a_partial_copy(tmp_path):
    root = synthetic.osv5m(tmp_path)
    (root / "images" / "train" / "01.zip").unlink()
    records = osv5m.read(root, "train")
    assert str(records) == "osv5m train: 40 listed, 20 whose image is missing; 20 usable"
    assert all("00.zip" in path for path in records.rows["path"].to_pylist())


def test_tars_of_images(tmp_path):
    root = synthetic.tars(tmp_path / "train")
    records = read_tars(root)
    assert str(records) == "train: 20 listed, 2 whose image is missing; 18 usable"
    pictures = {str(i): jpg for i, (_lat, _lon, jpg) in enumerate(synthetic.pictures(20, 5))}
    for row in records.rows.to_pylist():
        assert records.read(row["path"]) == pictures[row["id"]]
        assert row["country"] == "CL"
    (root / "0001.tar").write_bytes((root / "0001.tar").read_bytes()[:20_000])
    with pytest.raises(OSError, match=r"0001\.tar is no whole tar archive"):
        read_tars(root)
    with pytest.raises(FileNotFoundError, match="no tars of images"):
        read_tars(tmp_path)


def test_inat21(tmp_path):
    records = inat21.read(synthetic.inat21(tmp_path), "test")
    assert str(records) == "inat21 test: 20 listed, 2 without coordinates; 18 usable"
    assert torch.allclose(records.latlon.float(), places(2, 20)[torch.arange(20) % 10 != 0])
    assert records.read(records.rows["path"][0].as_py()) == synthetic.pictures(20, 2)[1][2]


@pytest.mark.parametrize("numbered", [False, True], ids=["23 columns", "24 columns"])
def test_yfcc(tmp_path, numbered):
    root = synthetic.yfcc(tmp_path, numbered=numbered)
    train, test = yfcc.read(root, "train"), yfcc.read(root, "test")
    assert str(train) == (
        "yfcc train: 60 listed, 4 videos, 20 of the other split, 4 of accuracy below 12, 4 without coordinates; 28 usable"
    )
    assert str(test) == "yfcc test: 60 listed, 4 videos, 36 of the other split; 20 usable"
    assert torch.allclose(test.latlon.float(), places(3, 60)[40:])
    by_id = {row["id"]: row for row in train.rows.to_pylist()}
    assert train.read(by_id["6985418914"]["path"]) == synthetic.pictures(60, 3)[3][2]


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "tsv", "parquet"])
def test_own_tables(tmp_path, kind):
    file = synthetic.table(tmp_path)
    found = read_table(file)
    if kind == "csv.gz":
        (tmp_path / "photos.csv.gz").write_bytes(gzip.compress(file.read_bytes()))
    elif kind == "tsv":
        (tmp_path / "photos.tsv").write_text("id\tlatitude\tlongitude\tpath\n" + "\n".join(
            f"{row['id']}\t{row['latitude']}\t{row['longitude']}\t{row['path']}" for row in found.rows.to_pylist()))  # fmt: skip
    elif kind == "parquet":
        pa.parquet.write_table(found.rows, tmp_path / "photos.parquet")
    again = read_table(tmp_path / f"photos.{kind}").with_images()
    assert len(again) == 20
    assert torch.equal(again.latlon, found.latlon)
    assert torch.allclose(again.latlon.float(), places(4, 20))
    assert again.rows["id"][7].as_py() == "photo.7"


def test_rows_without_a_path_have_no_image(tmp_path):
    with pytest.raises(ValueError, match="x: no column 'path'"):
        Records("x", table(), tmp_path).with_images()
    (tmp_path / "1.jpg").write_bytes(b"")
    some = Records("x", table(path=["1.jpg", None, "2.jpg", "1.jpg"]), tmp_path).with_images()
    assert str(some) == "x: 4 listed, 2 whose image is missing; 2 usable"


def test_namibia_is_a_country(tmp_path):
    (tmp_path / "a.csv").write_text(
        "id,latitude,longitude,country,city\na,1,2,NA,\nb,NA,2,NaN,x\nc,3,4,CL,nan\n"
    )
    records = read_table(tmp_path / "a.csv")
    assert str(records) == "a.csv: 3 listed, 1 without coordinates; 2 usable"
    assert records.rows["country"].to_pylist() == ["NA", "CL"]
    assert records.rows["city"].to_pylist() == [None, None]


def table(**columns):
    return pa.table(
        {
            "id": ["a", "b", "c", "d"],
            "latitude": [1.0, 2.0, 3.0, 4.0],
            "longitude": [5.0, 6.0, 7.0, 8.0],
            **columns,
        }
    )


def test_spoilt_rows_are_counted():
    spoilt = table(id=["a", "b", "a", "d"], latitude=[1.0, None, 3.0, float("nan")])
    assert (
        str(clean("x", spoilt, "."))
        == "x: 4 listed, 2 without coordinates, 1 with the id of an earlier row; 1 usable"
    )
    many = pa.concat_tables(
        [table(id=[f"{i}{c}" for c in "abcd"]) for i in range(50)]
        + [table(latitude=[91.0, 2.0, 3.0, 4.0])]
    )
    assert str(clean("x", many, ".")) == "x: 204 listed, 1 not on Earth; 203 usable"


def test_spoilt_tables_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no column 'latitude'.*found id, lat"):
        clean("x", pa.table({"id": ["a"], "lat": [1.0], "longitude": [1.0]}), ".")
    with pytest.raises(
        ValueError,
        match=r"1 of 4 places are not on Earth, the first of them 'b' with latitude 139.7.*swapped",
    ):
        clean("x", table(latitude=[1.0, 139.7, 3.0, 4.0]), ".")
    with pytest.raises(ValueError, match=r"latitude should be degrees, but .*'48°N'"):
        clean("x", table(latitude=["1", "48°N", "3", "4"]), ".")
    (tmp_path / "a.csv").write_text("id,latitude,longitude\na,1,2\nb,north,3\n")
    with pytest.raises(ValueError, match=r"a.csv cannot be read.*north"):
        read_table(tmp_path / "a.csv")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"a.parquet cannot be read"):
        read_table(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="should end in"):
        read_table(synthetic.table(tmp_path / "t").rename(tmp_path / "t" / "photos.txt"))
    with pytest.raises(FileNotFoundError, match="no table at"):
        read_table(tmp_path / "b.csv")


def test_spoilt_copies_are_refused(tmp_path):
    root = synthetic.osv5m(tmp_path / "osv5m")
    with pytest.raises(ValueError, match="unknown split 'val'"):
        osv5m.read(root, "val")
    archive = root / "images" / "train" / "00.zip"
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(OSError, match=r"00.zip is no whole zip archive"):
        osv5m.read(root, "train")
    for file in (root / "images" / "test").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="none of the 20 images is in"):
        osv5m.read(root, "test")
    with pytest.raises(FileNotFoundError, match=r"no train.csv in"):
        osv5m.read(tmp_path, "train")
    (tmp_path / "train.json").write_text('{"images": [{"id": 1}]}')
    with pytest.raises(ValueError, match="no COCO-style json"):
        inat21.read(tmp_path, "train")
    root = synthetic.yfcc(tmp_path / "yfcc")
    (root / "yfcc4k_ids.txt").unlink()
    with pytest.raises(
        FileNotFoundError, match="no yfcc4k_ids.txt in .*expected the test photos, an id per line"
    ):
        yfcc.read(root, "train")
    (root / "yfcc4k_ids.txt").write_text("")
    (root / "yfcc100m_dataset").write_text("1\t2\t3\n")
    with pytest.raises(ValueError, match="has 3 columns; expected 23"):
        yfcc.read(root, "train")


def test_a_damaged_image_in_an_archive_is_an_oserror(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("1.jpg", b"123")
    records = Records("x", table(), tmp_path)
    assert records.read("a.zip/1.jpg") == b"123"
    with pytest.raises(OSError, match=r"2.jpg cannot be read"):
        records.read("a.zip/2.jpg")
