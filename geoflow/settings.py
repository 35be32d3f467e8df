"""What the environment decides: the scale of a run, where data and caches live, whether progress bars show.

=====================  ===================================================  ==================
variable               meaning                                              default
=====================  ===================================================  ==================
``GEOFLOW_SCALE``      ``smoke`` (CI) · ``laptop`` · ``gpu``                ``laptop``
``GEOFLOW_CACHE``      where derived data is kept, safe to delete           ``data/cache``
``CI``                 set: no progress bars                                unset
=====================  ===================================================  ==================
"""

import os
import sys
from pathlib import Path

from tqdm.auto import tqdm

from geoflow.checks import choose

DATA = Path(__file__).resolve().parent.parent / "data"
SCALES = ("smoke", "laptop", "gpu")


def scale() -> str:
    """The scale of this run: `smoke`, `laptop` or `gpu`.

    Raises:
        ValueError: GEOFLOW_SCALE holds another name.
    """
    return choose("GEOFLOW_SCALE", os.environ.get("GEOFLOW_SCALE", "laptop"), SCALES)


def by_scale(smoke, laptop, gpu):
    """The value for the scale of this run."""
    return {"smoke": smoke, "laptop": laptop, "gpu": gpu}[scale()]


def cache_dir() -> Path:
    """Folder for derived data (tiles, embeddings). It is created on first use and safe to delete."""
    path = Path(os.environ.get("GEOFLOW_CACHE", DATA / "cache"))
    path.mkdir(parents=True, exist_ok=True)
    return path


def show_progress() -> bool:
    """Whether a person watches: a terminal or a live notebook, and not CI."""
    return not os.environ.get("CI") and sys.stderr.isatty()


def progress(iterable=None, disable: bool = False, **options):
    """A progress bar that is silent where nobody watches."""
    return tqdm(iterable, disable=disable or not show_progress(), dynamic_ncols=True, **options)
