"""Fixtures for every test: seeded randomness, float64, the optional shared folder; no display, no network."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

os.environ["MPLBACKEND"] = "Agg"
os.environ["HF_HUB_OFFLINE"] = "1"  # a forgotten download fails at once, not after 23 s of retries
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # workers that share the cores must not each take all of them


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
def shared() -> Path:
    """The folder `shared` beside the checkout: larger reference files, not part of the project."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not path.is_dir():
        pytest.skip("there is no folder 'shared' beside the checkout: the references of this test are not part of the project")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """A headless Chromium, see `chromium.opened`. Where there is none its tests are skipped; on Debian `apt-get install chromium` brings it."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install -c constraints.txt -e '.[dev]'"
    )
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()
