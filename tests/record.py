"""A player's animation as a WebP or GIF, recorded in Chromium: the README's hero.

python tests/record.py notebooks/figures/flow.webp
"""

import argparse
import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image

from geoflow import Geolocator, schedules
from geoflow.data import tiles
from geoflow.viz.player import TrajectoryPlayer


def hero(steps: int = 48, n: int = 250) -> TrajectoryPlayer:
    """Three example tiles, side by side in step."""
    geo, names = Geolocator.from_pretrained("tiles"), ("ocean", "coast", "taiga")
    images, truth = (
        [tiles.tile(*tiles.EXAMPLES[name]) for name in names],
        [tiles.EXAMPLES[name] for name in names],
    )
    paths = geo.trajectories(images, n=n, steps=steps, seed=0)
    return TrajectoryPlayer(
        paths,
        times=schedules.time_grid(geo.schedule, steps),
        truth=truth,
        images=images,
        titles=names,
    )


def record(player: TrajectoryPlayer, width: int, every: int) -> list[Image.Image]:
    """Pictures of the maps at each `every`-th step."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": width, "height": 700}, color_scheme="light")
        page.goto(player.save_html(Path(folder) / "player.html").as_uri())
        frames, steps = [], int(page.locator(".way").get_attribute("max") or 1)
        for step in range(0, steps + 1, every):
            page.locator(".way").evaluate(
                "(way, step) => { way.value = step; way.dispatchEvent(new Event('input')); }", step
            )
            page.wait_for_timeout(60)
            frames.append(
                Image.open(io.BytesIO(page.locator(".geoflow .maps").screenshot())).convert("RGB")
            )
        browser.close()
    return frames


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--width", type=int, default=960, help="pixels")
    parser.add_argument("--every", type=int, default=1, help="steps between frames")
    options = parser.parse_args()
    frames = record(hero(), options.width, options.every)
    durations = [700, *[90] * (len(frames) - 2), 2500]  # ms: noise and places are looked at longer
    frames[0].save(
        options.file,
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=0,
        quality=60,
        method=4,
    )
    print(f"{options.file}: {len(frames)} frames, {options.file.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
