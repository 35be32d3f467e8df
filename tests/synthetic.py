"""Small copies of the real data sets' layouts, made of Earth tiles: what the readers, the embeddings and the rehearsal run on."""

import csv
import functools
import hashlib
import io
import json
import multiprocessing
import os
import tarfile
import time
import zipfile
from pathlib import Path

import torch
from typer.testing import CliRunner

from geoflow import sphere
from geoflow.data import tiles

OSV_COLUMNS = [
    "id", "latitude", "longitude", "thumb_original_url", "country", "sequence", "captured_at", "lon_bin", "lat_bin", "cell",
    "region", "sub-region", "city", "land_cover", "road_index", "drive_side", "climate", "soil", "dist_sea", "quadtree_10_5000",
    "quadtree_10_25000", "quadtree_10_1000", "quadtree_10_50000", "quadtree_10_12500", "quadtree_10_500", "quadtree_10_2500",
    "unique_region", "unique_sub-region", "unique_city", "unique_country", "creator_username", "creator_id",
]  # fmt: skip


@functools.cache
def pictures(n: int, seed: int) -> list[tuple[float, float, bytes]]:
    """Latitude, longitude and jpg of n tiles."""
    x = tiles.sample_centers(n, "train", torch.Generator().manual_seed(seed))
    found = []
    for image, (lat, lon) in zip(tiles.render(x), sphere.to_latlon(x).tolist(), strict=True):
        jpg = io.BytesIO()
        tiles.to_pil(image).save(jpg, "JPEG", quality=90)
        found.append((lat, lon, jpg.getvalue()))
    return found


def write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def osv5m(root: Path, train: int = 40, test: int = 20, zipped: bool = True) -> Path:
    """The hub's layout: two csv files, and zips of folders of jpgs."""
    for split, n, first in (("train", train, 0), ("test", test, 5_000_000)):
        images = root / "images" / split
        images.mkdir(parents=True)
        with (root / f"{split}.csv").open("w", newline="") as file:
            rows = csv.DictWriter(file, OSV_COLUMNS)
            rows.writeheader()
            for i, (lat, lon, jpg) in enumerate(pictures(n, first)):
                id_ = str(100_000_000_000_000 + first + i)
                rows.writerow(
                    {"id": id_, "latitude": lat, "longitude": lon, "country": "", "region": "a, b", "unique_country": "CL",
                     "unique_region": "Chatham Islands_NZ", "unique_city": ""}
                )  # fmt: skip
                if zipped:
                    with zipfile.ZipFile(images / f"{i % 2:02d}.zip", "a") as archive:
                        archive.writestr(f"{i % 2:02d}/{id_}.jpg", jpg)
                else:
                    write(images / f"{i % 2:02d}" / f"{id_}.jpg", jpg)
    return root


def tars(root: Path, n: int = 20) -> Path:
    """Webdataset shards of images, as the official ones: KEY.jpg and KEY.json in two tars; every tenth sample lacks its image."""
    root.mkdir(parents=True, exist_ok=True)
    for shard in range(2):
        with tarfile.open(root / f"{shard:04d}.tar", "w") as archive:
            for i, (lat, lon, jpg) in enumerate(pictures(n, 5)):
                if i % 2 == shard:
                    row = {
                        "id": f"{i}",
                        "latitude": lat,
                        "longitude": lon,
                        "unique_country": "CL",
                        "sequence": "x",
                    }
                    for name, content in (
                        (f"{i:06d}.jpg", jpg),
                        (f"{i:06d}.json", json.dumps(row).encode()),
                    ):
                        if i % 10 or name.endswith("json"):
                            member = tarfile.TarInfo(name)
                            member.size = len(content)
                            archive.addfile(member, io.BytesIO(content))
    return root


def inat21(root: Path, train: int = 40, test: int = 20) -> Path:
    """COCO-style json beside folders of species; every tenth image lacks coordinates."""
    for file, n, seed in (("train", train, 1), ("val", test, 2)):
        images = []
        for i, (lat, lon, jpg) in enumerate(pictures(n, seed)):
            name = f"{file}/{i % 3:05d}_Animalia_Species/{hashlib.md5(str((seed, i)).encode()).hexdigest()}.jpg"
            write(root / name, jpg)
            places = (
                {"latitude": None, "longitude": None}
                if i % 10 == 0
                else {"latitude": lat, "longitude": lon}
            )
            images.append(
                {
                    "id": seed * 1000 + i,
                    "width": 32,
                    "height": 32,
                    "file_name": name,
                    "license": 0,
                    "date": "2020-01-01",
                    **places,
                }
            )
        annotations = [
            {"id": image["id"], "image_id": image["id"], "category_id": image["id"] % 3}
            for image in images
        ]
        (root / f"{file}.json").write_text(
            json.dumps({"images": images, "annotations": annotations, "categories": []})
        )
    return root


def yfcc(root: Path, train: int = 40, test: int = 20, numbered: bool = False) -> Path:
    """Tab-separated metadata without a header (23 columns, or 24 with line numbers), hashes, images in two levels of folders, and a list
    of test photos. Of 10 training photos one has a coarse geotag, one none, and one is a video.
    """
    root.mkdir(parents=True, exist_ok=True)
    lines, hashes, ids = [], [], []
    for i, (lat, lon, jpg) in enumerate(pictures(train + test, 3)):
        id_ = str(6_985_418_911 + i)
        spoilt = i % 10 if i < train else 9
        accuracy, video = ("11" if spoilt == 0 else "16"), ("1" if spoilt == 2 else "0")
        place = ["", "", ""] if spoilt == 1 else [str(lon), str(lat), accuracy]
        row = [id_, "4e2f7a", "a+nick", "2012-03-16 16:41:02.0", "1331930462", 'Canon "X"', "title", "text", "tags", "", *place,
               "http://page", "http://download", "Attribution", "http://license", "1", "2", "s", "so", "jpg", video]  # fmt: skip
        lines.append("\t".join([str(i), *row] if numbered else row))
        name = hashlib.md5(id_.encode()).hexdigest()
        hashes.append(f"{id_}\t{name}")
        write(root / "images" / name[:3] / name[3:6] / f"{name}.jpg", jpg)
        ids += [id_] * (i >= train)
    (root / "yfcc100m_dataset").write_text("\n".join(lines) + "\n")
    (root / "yfcc100m_hash").write_text("\n".join(hashes) + "\n")
    (root / "yfcc4k_ids.txt").write_text("\n".join(ids) + "\n")
    return root


def table(root: Path, n: int = 20) -> Path:
    """A CSV of one's own photos."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "photos.csv").open("w", newline="") as file:
        rows = csv.DictWriter(file, ["id", "latitude", "longitude", "path", "comment"])
        rows.writeheader()
        for i, (lat, lon, jpg) in enumerate(pictures(n, 4)):
            write(root / "pictures" / f"photo {i}.jpg", jpg)
            rows.writerow(
                {
                    "id": f"photo.{i}",
                    "latitude": lat,
                    "longitude": lon,
                    "path": f"pictures/photo {i}.jpg",
                    "comment": "a\nb",
                }
            )
    return root / "photos.csv"


def embed_slowly(records, encoder, out: Path) -> None:
    """In a process of its own: embed, some 15 ms per image."""
    from geoflow.training.embedding import embed

    torch.set_num_threads(1)
    preprocess = encoder.preprocess
    encoder.preprocess = lambda image: time.sleep(0.01) or preprocess(image)
    embed(records, encoder, out, shard=5, batch=2)


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["synthetic", "geoflow.training.embedding", "geoflow.training.runs"])


def run_here(line: str) -> str:
    """What a command of geoflow prints, run in this process."""
    from geoflow import cli

    return CliRunner().invoke(cli.app, line.split(), catch_exceptions=False).stdout


def on_two_processes(port: int, function, *arguments, **options) -> None:
    """Call a function in two processes, with the environment that `torchrun` gives."""
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared = {**os.environ, **shared, "TORCHELASTIC_RUN_ID": "none"}
    environments = [{**shared, "RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    ranks = [
        FORKS.Process(target=_in_environment, args=(environment, function, arguments, options))
        for environment in environments
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(300)
    assert [process.exitcode for process in ranks] == [0, 0]


def _in_environment(environment: dict, function, arguments: tuple, options: dict) -> None:
    torch.set_num_threads(1)
    os.environ |= environment
    function(*arguments, **options)
