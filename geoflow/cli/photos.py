"""The commands for images of your own: `locate`, and the page that `explore` writes."""

import json
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tqdm import tqdm

import geoflow
from geoflow import runtime
from geoflow.cli.common import (
    Model,
    Out,
    Seed,
    Weights,
    argument,
    check_seed,
    file_to_write,
    interruptible,
    option,
    path,
    working_in,
)
from geoflow.data.typed import on_one_line
from geoflow.runtime import count

BATCH = 8  # photos per call of the encoder
MOST_SAMPLES = 1_000_000  # all samples of an image are in memory at once
NOT_A_TILE = "NOT A SATELLITE TILE, SO THE ANSWER MEANS NOTHING"
ADVICE = (
    "The model knows only satellite images 200 to 400 km wide. For photos choose a photo model, "
    "such as --model plonk-yfcc; `geoflow doctor` says what it needs."
)


def locate(
    images: Annotated[list[Path], argument("image files, folders, or patterns", path)],
    model: Model = "tiles",
    weights: Weights = "",
    out: Out = Path("outputs/locate"),
    k: Annotated[int, option("places per image")] = 3,
    samples: Annotated[int, option("samples per image; fewer are faster and coarser")] = 1024,
    guidance: Annotated[
        float, option("weight of guidance, which sharpens the answer; 0: none")
    ] = 0.0,
    seed: Seed = 0,
    maps: Annotated[
        bool, option("also write maps, regions and densities, which take most of the time")
    ] = True,
    exif: Annotated[
        bool, option("print the distance to the place in the EXIF data, which no model sees")
    ] = False,
) -> None:
    """Where could these images have been taken?

    The default model knows only satellite tiles: for photos choose a photo model, such as
    --model plonk-yfcc.

    Prints the k best places of each image, with probability, radius and nearest town, and writes
    them to places.csv. Writes for each image a map (.png) and two files for a GIS: samples and
    regions of 50, 90 and 95 % (.geojson), and the density (.tif). Images that cannot be read are
    named, and the others are answered. After an interruption, run it again: answers to the same
    question are kept.
    """
    _check(k, samples, guidance, seed)
    unreadable: list[str] = []

    def told(line: str) -> None:
        unreadable.append(line)
        _complain(line)

    others: list[Path] = []
    files = geoflow.photos.find(images, told, others.append)
    if others:
        print(_not_looked_at(others))
    how = {"guidance": guidance, "seed": seed}
    with interruptible(out):  # nothing is written before the model can answer the question
        geo = _model(model, weights)
        _try(geo, how)
    with working_in(out):
        asked = {"model": model, "weights": _fingerprint(geo), "samples": samples, "exif": exif}
        answers = geoflow.photos.Answers(
            out / geoflow.photos.TABLE, k, maps, _complain, **asked, **how
        )
        question = _Question(geo, model, answers, k, samples, maps, exif, how)
        try:
            failed = _answer_all(question, files) + len(unreadable)
        except KeyboardInterrupt as interruption:
            raise type(interruption)(_kept(answers)) from None
        except OSError as error:
            what = f"{error.strerror or error}; {_kept(answers)}"
            raise OSError(error.errno, what, error.filename) from error
    print(f"results: {out}")
    if failed:
        total = count(len(files) + len(unreadable), "image")
        raise ValueError(f"{failed} of {total} could not be read")


def _check(k: int, samples: int, guidance: float, seed: int) -> None:
    """A `ValueError` for a number that makes no sense, whatever the model."""
    if k < 1:
        raise ValueError(f"--k {k}; expected at least 1")
    if not k <= samples <= MOST_SAMPLES:
        most = f"at most {MOST_SAMPLES:,}"
        raise ValueError(f"--samples {samples}; expected at least --k {k}, {most}")
    check_seed(seed)
    runtime.number(f"--guidance {guidance}", guidance)


def _complain(line: str) -> None:
    # This does not break a progress bar.
    tqdm.write(on_one_line(f"geoflow: {line}"), file=sys.stderr)


def _not_looked_at(files: list[Path]) -> str:
    """How many files of folders are no images by their names, and how those end."""
    endings = sorted({geoflow.photos.shown(file.suffix.lower()) or "none" for file in files})
    more = ", …" if len(endings) > 8 else ""
    what = f"{count(len(files), 'other file')} not looked at"
    return f"{what}, by the ending: {', '.join(endings[:8])}{more}"


def _model(name: str, weights: str):
    """The model, with its encoder ready."""
    from geoflow.encoders import PHOTO_ENCODERS, PhotoEncoder

    geo = geoflow.Geolocator.from_pretrained(name)
    if weights:
        if geo.encoder is None or geo.encoder.name not in PHOTO_ENCODERS:
            raise ValueError(f"--weights {weights}: model {name} has no photo encoder")
        geo.encoder = PhotoEncoder(geo.encoder.name, weights)
    if geo.encoder is None:
        raise ValueError(f"model {name} looks at no image; choose another --model")
    if isinstance(geo.encoder, PhotoEncoder):
        geo.encoder.load()
    return geo


def _try(geo, how: dict) -> None:
    """Draw a sample for no image: a `ValueError` if the model cannot have this guidance."""
    import torch

    cond = torch.zeros(1, geo.network.config["cond_dim"])
    geo.sample(cond=cond, n=1, steps=1, **how)


def _fingerprint(geo) -> str:
    """A checksum of the weights of encoder and network, on which the answers depend."""
    return runtime.sha256_of(*map(runtime.sha256_of_weights, (geo.encoder, geo.network)))[:16]


@dataclass(frozen=True)
class _Question:
    """What is asked about every image."""

    geo: "geoflow.Geolocator"
    model: str  # its name
    answers: "geoflow.photos.Answers"
    k: int
    samples: int
    maps: bool
    exif: bool
    how: dict  # guidance and seed


def _answer_all(question: _Question, files: list[Path]) -> int:
    """Answer for each image that is not yet in the table; return how many cannot be read."""
    import torch

    from geoflow.data import towns

    todo = [file for file in files if not question.answers.hold(file)]
    before = f", {len(files) - len(todo)} answered before" if len(todo) < len(files) else ""
    print(f"{count(len(files), 'image')}{before}")
    if len(todo) > 1:  # the first image, which is timed, must not include the loading of the towns
        towns.nearest(torch.zeros(1, 2))
    started, answered = time.perf_counter(), 0
    with runtime.progress(total=len(todo), unit="image") as bar:
        for number, (photo, cond) in enumerate(_embedded(question, todo), 1):
            if photo is not None:
                bar.write(_answer(question, photo, cond))
                answered += 1
                if answered == 1 and (left := len(todo) - number):
                    seconds = (time.perf_counter() - started) * left
                    bar.write(f"about {runtime.duration(seconds)} for the other {left}")
            bar.update()
    firsts = [row for file in files for row in question.answers.of(file)[:1]]
    if unlike := sum(bool(row["warning"]) for row in firsts):
        of = count(len(files), "image")
        _complain(f"WARNING: not a satellite tile: {unlike} of {of}. {ADVICE}")
    return len(todo) - answered


def _kept(answers) -> str:
    return f"{answers.table} holds the answers for {count(len(answers.rows), 'image')}"


def _embedded(question: _Question, files: list[Path]) -> Iterator[tuple]:
    """Yield (photo, its embedding), or (None, None) for an unreadable file, which is named."""
    import torch

    encoder = question.geo.encoder
    starts = range(1, len(files), BATCH)  # the first image alone, to measure how long one takes
    for batch in (files[:1], *(files[start : start + BATCH] for start in starts)):
        photos, pixels = [], []
        for file in batch:
            try:
                photo = geoflow.photos.read(file)
                pixels.append(encoder.preprocess(photo.image))  # ty: ignore[missing-union-attribute]
            except (ValueError, OSError, MemoryError) as error:
                name = geoflow.photos.shown(file)
                why = getattr(error, "strerror", None) or str(error) or "it needs too much memory"
                _complain(why if name in why else f"{name} cannot be read: {why}")
                if isinstance(error, ValueError):  # its content is damaged; an OSError may pass
                    question.answers.drop(file)
                yield None, None
            else:
                photo.image.thumbnail((512, 512))  # a map shows no more pixels
                photos.append(photo)
        if photos:
            yield from zip(photos, question.geo.embed(torch.stack(pixels)).split(1), strict=True)


def _answer(question: _Question, photo, cond) -> str:
    """Write the best places of an image and its map; return lines about it."""
    how = {"cond": cond, **question.how}
    best = question.geo.predict(k=question.k, n=question.samples, **how)
    rows = geoflow.photos.rows(best, photo.place if question.exif else None)
    warning = _warning(question.geo, photo)
    lines = [geoflow.photos.shown(photo.file)]
    if warning:
        lines.append(f"  {warning}")
    names = dict.fromkeys(geoflow.photos.RESULTS, "")
    if question.maps:
        stem = geoflow.photos.stem_for(question.answers.table.parent, photo.file)
        lines.append(f"  {_draw(question, photo, stem, best, rows, warning, how)}")
        names = {kind: file.name for kind, file in geoflow.photos.results(stem).items()}
    question.answers.add(photo, rows, warning=warning, **names)
    lines += [f"  {_sentence(row)}" for row in rows]
    if question.exif and photo.place is None:
        lines.append(f"  the camera did not say where it was: {photo.no_place}")
    return "\n".join(lines)


def _warning(geo, photo) -> str:
    """Say that a model of satellite tiles was asked about something else; empty if not."""
    recipe = geo.provenance.get("recipe")
    if not (isinstance(recipe, dict) and "tiles" in recipe and photo.unlike_tile):
        return ""
    return f"{NOT_A_TILE}: {photo.unlike_tile}"


def _draw(question: _Question, photo, stem: Path, best, rows, warning: str, how: dict) -> str:
    """Write the map of one image and its files for a GIS; return a line about it."""
    from geoflow.viz import charts, maps

    geo, camera = question.geo, photo.place if question.exif else None
    density = geo.density(cond=how["cond"], guidance=how["guidance"])
    files = geoflow.photos.results(stem)
    about = {"file": geoflow.photos.identity(photo.file), "sha256": photo.sha256}
    about |= {"warning": warning, "model": question.model, "samples": question.samples}
    about |= question.how
    samples = geo.sample(n=question.samples, **how)[0]
    collection = geoflow.photos.to_geojson(density, samples, rows, about)
    # An interruption must not leave the row of a former answer beside the files of this one.
    if any(row["geojson"] for row in question.answers.of(photo.file)):
        question.answers.drop(photo.file)
    # First, since it says which image the results belong to.
    runtime.write_atomically(files["geojson"], json.dumps(collection))
    density.to_geotiff(files["geotiff"], about)
    title = geoflow.photos.shown(photo.file.name)[:40].replace("$", r"\$")
    title = f"{title}: {NOT_A_TILE}" if warning else title
    figure = maps.density_figure(density, photo.image, camera, best.latlon[0], best.mass[0], title)
    if warning:
        figure.axes[0].title.set_color("crimson")
    with warnings.catch_warnings():
        # Matplotlib's font lacks the letters of some titles.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        charts.save_figure(figure, files["map"], dpi=200, about=about)
    half = f"half of the probability on {density.region_area_km2(0.5):,.0f} km²"
    return f"density integrates to {density.integral:.3f}; {half}"


def _sentence(row: dict) -> str:
    """One of the best places, as a line of text."""
    from geoflow.data.towns import FAR_KM

    lat, lon = row["latitude"], row["longitude"]
    where = f"{abs(lat):5.1f}°{'NS'[lat < 0]} {abs(lon):5.1f}°{'EW'[lon < 0]}"
    away = "" if row["exif_km"] is None else f"; {row['exif_km']:,.0f} km from where the camera was"
    town = f"no town within {FAR_KM:.0f} km"
    if row["nearest_town"]:
        town = f"{row['town_km']:.0f} km from {row['nearest_town']}"
    return f"{row['mass']:6.1%}  {where}  half within {row['half_within_km']:,.0f} km; {town}{away}"


def explore(
    out: Annotated[Path, option("the page to write", file_to_write)] = Path("explore.html"),
    points: Annotated[int, option("points of each flow")] = 240,
    seed: Seed = 0,
) -> None:
    """Write a page to explore without Python or a network: six example tiles and six methods, with
    sliders for steps and guidance; and a flow map, which the browser computes for a hundred tiles.
    It takes a few minutes.
    """
    from geoflow.viz import player

    check_seed(seed)
    text = (
        "Random points flow to where a satellite tile could have been taken. Pick a tile, a "
        "method, the solver's number of steps and the guidance; press play, or drag the slider "
        "from noise to places; drag the maps to turn them. Further down a flow map jumps there in "
        "one call of its network, which this page computes while you watch."
    )
    sections = {
        "Six methods, computed in advance": geoflow.widgets.atlas(n=points, seed=seed),
        "A flow map, computed in your browser": _hundred_tiles(seed),
    }
    page = player.page(sections, "geoflow: where could this tile be?", text)
    player.write_page(out, page)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, opens in any browser")


def _hundred_tiles(seed: int):
    """The flow map on the example tiles and on test tiles from any view."""
    from geoflow.data import tiles

    images = {name: tiles.tile(*place) for name, place in tiles.EXAMPLES.items()}
    truth = dict(tiles.EXAMPLES)
    test = tiles.load("test", 100 - len(images))
    for i, latlon in enumerate(geoflow.sphere.to_latlon(test.x).tolist()):
        images[f"{i + 1}"], truth[f"{i + 1}"] = tiles.to_pil(test.images[i]), tuple(latlon)
    return geoflow.widgets.explore_jumps(images=images, truth=truth, seed=seed)
