"""The commands for images of your own: `locate`, and the page that `explore` writes."""

import json
import sys
from pathlib import Path
from typing import Annotated

import geoflow
from geoflow import runtime
from geoflow.cli.common import Model, Out, Seed, Weights, argument, option


def locate(
    images: Annotated[list[Path], argument("image files, folders, or patterns in quotes")],
    model: Model = "tiles",
    weights: Weights = "",
    out: Out = Path("outputs/locate"),
    k: Annotated[int, option("places per image")] = 3,
    guidance: float = 0.0,
    seed: Seed = 0,
    maps: Annotated[
        bool, option("maps, regions and densities too, 10 s per image on 2 CPUs")
    ] = True,
    exif: Annotated[
        bool, option("say how far the answer is from the camera's own place; no model sees that")
    ] = False,
) -> None:
    """Where could these images have been taken?

    Prints the k best places of each, with probability, radius and nearest town, and writes them to
    places.csv; for each image a map (.png), samples and regions of 50, 90 and 95 % (.geojson), and
    the density (.tif), both for a GIS. What cannot be read is told, and the others go on. Run it
    again to go on after an interruption: what was asked and answered before is kept.
    """
    from geoflow.encoders import PHOTO_ENCODERS, PhotoEncoder

    files = geoflow.photos.find(images)
    if k < 1:
        raise ValueError(f"--k {k}; expected at least 1")
    geo = geoflow.Geolocator.from_pretrained(model)
    if weights:
        if geo.encoder is None or geo.encoder.name not in PHOTO_ENCODERS:
            raise ValueError(f"--weights {weights}: model {model} has no photo encoder")
        geo.encoder = PhotoEncoder(geo.encoder.name, weights)
    out.mkdir(parents=True, exist_ok=True)
    pairs = zip(files, geoflow.photos.stems(files), strict=True)
    stems = {file: out / stem for file, stem in pairs}
    unmapped = [file for file in files if maps and not all(f.exists() for f in _maps(stems[file]))]
    asked = {"model": model, "guidance": guidance, "seed": seed, "exif": exif}
    answers = geoflow.photos.Answers(out / "places.csv", files, k, unmapped, **asked)
    todo = [file for file in files if str(file) not in answers.done]
    before = f", {len(answers.done)} answered before" if answers.done else ""
    print(f"{len(files)} image{'s' * (len(files) > 1)}{before}")
    failed = 0
    with runtime.progress(total=len(todo), unit="image") as bar:
        for file, image, cond in _embedded(geo, todo):
            if image is None:
                failed += 1
            else:
                how = {"cond": cond, "guidance": guidance, "seed": seed}
                rows = _answer(geo, file, image, k, exif, stems[file] if maps else None, how)
                answers.add({"file": file, **row} for row in rows)
            bar.update()
    print(f"results: {out}")
    if failed:
        raise ValueError(f"{failed} of {len(files)} images could not be read")


def _maps(stem: Path) -> list[Path]:
    """Return the files of an image's map, regions and raster."""
    return [stem.with_name(stem.name + ending) for ending in (".png", ".geojson", ".tif")]


def _embedded(geo, files: list[Path]):
    """Yield (file, image, embedding); an unreadable file is told, and has None for both."""
    from geoflow.encoders import load_image

    for batch in (files[start : start + 8] for start in range(0, len(files), 8)):
        readable = {}
        for file in batch:
            try:
                readable[file] = load_image(file)
            except (ValueError, OSError) as error:
                print(f"geoflow: {error}", file=sys.stderr)
                yield file, None, None
        if readable:
            conditions = geo.embed(list(readable.values())).split(1)
            yield from zip(readable.keys(), readable.values(), conditions, strict=True)


def _answer(geo, file: Path, image, k: int, exif: bool, stem: Path | None, how: dict) -> list[dict]:
    """Print the best places of an image, and draw its map if its files have a stem: table rows."""
    camera = geoflow.photos.exif_latlon(file) if exif else None
    best = geo.predict(k=k, **how)
    rows = geoflow.photos.rows(best, camera)
    print(file)
    if stem is not None:
        print(f"  {_draw(geo, image, stem, file.name, best, rows, camera, how)}")
    print("\n".join(f"  {_sentence(row)}" for row in rows))
    if exif and camera is None:
        print("  the camera did not say where it was")
    return rows


def _draw(geo, image, stem: Path, title: str, best, rows: list[dict], camera, how: dict) -> str:
    """Write the map of one image, and what a GIS reads; return a line about it."""
    from geoflow.viz import charts, maps

    density = geo.density(cond=how["cond"], guidance=how["guidance"])
    picture, regions, raster = _maps(stem)
    figure = maps.density_figure(density, image, camera, best.latlon[0], best.mass[0], title)
    charts.save_figure(figure, picture, dpi=200)
    collection = geoflow.photos.to_geojson(density, geo.sample(n=1000, **how)[0], rows)
    runtime.write_atomically(regions, json.dumps(collection))
    density.to_geotiff(raster)
    half = f"half of the probability on {density.region_area_km2(0.5):,.0f} km²"
    return f"density integrates to {density.integral:.3f}; {half}"


def _sentence(row: dict) -> str:
    """Say one of the best places for a reader."""
    lat, lon = row["latitude"], row["longitude"]
    where = f"{abs(lat):5.1f}°{'NS'[lat < 0]} {abs(lon):5.1f}°{'EW'[lon < 0]}"
    away = "" if row["exif_km"] is None else f"; {row['exif_km']:,.0f} km from where the camera was"
    near = f"half within {row['half_within_km']:,.0f} km; nearest town {row['nearest_town']}"
    return f"{row['mass']:6.1%}  {where}  {near}{away}"


def explore(
    out: Annotated[Path, option("the page to write")] = Path("explore.html"),
    points: Annotated[int, option("of each flow")] = 240,
    seed: Seed = 0,
) -> None:
    """Write a page to explore without Python or a network: six telling tiles, six methods, steps,
    guidance. A few minutes.
    """
    text = (
        "Random points flow to where a satellite tile could have been taken. Pick a tile, a "
        "method, the solver's number of steps and the guidance; press play, or drag the slider "
        "from noise to places; drag the maps to turn them."
    )
    atlas = geoflow.widgets.atlas(n=points, seed=seed)
    file = atlas.save_html(out, "geoflow: where could this tile be?", text)
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB, opens in any browser")
