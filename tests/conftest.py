"""Fixtures for every test: seeded randomness, float64, models that are loaded once; no display, no network."""

import os

if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # before torch: workers share the cores, and so do the programs they start
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["HF_HUB_OFFLINE"] = "1"  # a forgotten download fails at once, not after 23 s of retries

import functools
import shutil
from collections.abc import Callable, Iterator

import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)


@pytest.fixture
def generator() -> torch.Generator:
    """Randomness that is the same in every run."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def float64():
    """Double precision by default during one test: separates wrong mathematics from rounding."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="session")
def shipped() -> Callable:
    """Shipped models by name, each loaded once. They are for reading: a test that changes a model loads its own."""
    from geoflow import Geolocator

    return functools.cache(Geolocator.from_pretrained)


@pytest.fixture(scope="session")
def cond() -> torch.Tensor:
    """Embeddings of three images, for the models of `small.model`."""
    return torch.randn(3, 8, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """A headless Chromium, see `chromium.opened`. Where there is none its tests are skipped; on Debian `apt-get install chromium` brings it."""
    playwright = pytest.importorskip(
        "playwright.sync_api",
        reason="playwright is not installed: pip install -c constraints.txt -e '.[dev]'",
    )
    chromium = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if chromium is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()
