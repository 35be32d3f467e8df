"""The site: built as `make site` builds it, read as files, then opened from the disk in a browser."""

import base64
import functools
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import execute
import nbformat
import pytest
from chromium import opened
from PIL import Image

from geoflow import Geolocator, widgets

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "notebooks" / "site"))
import conf  # noqa: E402, the site's settings of Sphinx

FETCHING = {
    ("iframe", "src"),
    ("img", "src"),
    ("link", "href"),
    ("script", "src"),
    ("source", "src"),
    ("video", "src"),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    options = ["-c", "notebooks/site", "-W", "--keep-going", "-q"]
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-M", "html", ".", folder, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    geo = Geolocator.from_pretrained("tiles")
    widgets.atlas({"Riemannian flow, S²": geo}, n=20, steps=(8,), guidances=(0.0,)).save_html(
        folder / "html/explore.html"
    )
    return folder / "html"


class Page(HTMLParser):
    """What links need: anchors, addresses by tag and attribute; and the text outside of code, scripts and formulas."""

    def __init__(self, html: str):
        super().__init__()
        self.anchors, self.addresses, self.formulas, self.text, self.frames = {""}, [], 0, "", []
        self.skipped = []  # elements that we are in, within one whose text is not prose
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        self.addresses += [
            (tag, name, attributes[name]) for name in ("href", "src") if attributes.get(name)
        ]
        if attributes.get("srcdoc"):
            self.frames.append(Page(attributes["srcdoc"]))
        formula = "math" in attributes.get("class", "").split()
        self.formulas += formula
        if tag not in ("br", "hr", "img", "input", "link", "meta", "use", "path") and (
            self.skipped or formula or tag in ("pre", "code", "script", "style")
        ):
            self.skipped.append(tag)

    def handle_endtag(self, tag):
        if self.skipped and self.skipped[-1] == tag:
            self.skipped.pop()

    def handle_data(self, data):
        if not self.skipped:
            self.text += data


@functools.cache
def read(file: Path) -> Page:
    return Page(file.read_text(encoding="utf-8"))


def pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def test_gallery_has_every_notebook_with_a_thumbnail(site):
    notebooks = {f"notebooks/{name}.html" for name in execute.sources() if "/" not in name}
    gallery = (site / "index.html").read_text(encoding="utf-8")
    cards = re.findall(
        r'<a class="card" href="([^"]+)">\s*<img src="([^"]+)" alt="" loading="lazy">\s*<strong>(.+)</strong>\s*<span>(.+)</span>',
        gallery,
    )
    assert {page for page, *_ in cards} == notebooks
    assert len(cards) == len(notebooks)
    assert all((site / thumbnail).stat().st_size > 1000 for _, thumbnail, *_ in cards)


def test_solutions_are_pages(site):
    assert all((site / f"notebooks/{name}.html").exists() for name in execute.sources())


def test_links_and_anchors_lead_somewhere(site):
    broken = []
    for file in pages(site):
        for *_, address in read(file).addresses:
            url = urlsplit(address)
            if url.scheme or url.netloc:
                continue
            target = (file.parent / unquote(url.path)).resolve() if url.path else file
            if not target.is_file() or (
                target.suffix == ".html" and unquote(url.fragment) not in read(target).anchors
            ):
                broken.append(f"{file.relative_to(site)}: {address}")
    assert broken == []


def test_nothing_is_fetched_from_a_network(site):
    fetched = [
        f"{file.relative_to(site)}: {address}"
        for file in pages(site)
        for page in (read(file), *read(file).frames)
        for tag, name, address in page.addresses
        if (tag, name) in FETCHING and urlsplit(address).scheme not in ("", "data")
    ]
    styles = [
        file.name
        for file in site.rglob("*.css")
        if re.search(r"(url\(|@import)\W*(https?:)?//", file.read_text(encoding="utf-8"))
    ]
    assert fetched + styles == []


def test_formulas_and_tables_are_no_longer_markup(site):
    for name, source in execute.sources().items():
        page = read(site / f"notebooks/{name}.html")
        assert page.formulas >= len(
            re.findall(r"\$\$.+?\$\$", source.read_text(encoding="utf-8"), re.DOTALL)
        ), name
        assert re.findall(r"\$|\|[-—]", page.text) == [], name


def test_index_knows_terms(site):
    index = json.loads(
        (site / "searchindex.js")
        .read_text(encoding="utf-8")
        .removeprefix("Search.setIndex(")
        .removesuffix(")")
    )
    found = [
        index[place]["geodes"] for place in ("terms", "titleterms")
    ]  # the stem of geodesic: a number, or several
    pages = {
        index["docnames"][number]
        for numbers in found
        for number in (numbers if isinstance(numbers, list) else [numbers])
    }
    assert {"notebooks/01_the_sphere", "notebooks/03_flow_matching_on_the_sphere"} <= pages
    assert "notebooks/09_evaluation" not in pages


def test_questions_lead_to_every_notebook(site):
    answers = {address for *_, address in read(site / "notebooks/site/questions.html").addresses}
    names = [name for name in execute.sources() if "/" not in name]
    assert {f"../{name}.html" for name in names} <= answers


def test_a_thumbnail_is_the_tagged_figure_or_the_most_vivid(tmp_path):
    """An empty map, whose colours are pale, is not chosen before a figure with curves."""

    def cell(color, size, tags=()):
        buffer = io.BytesIO()
        image = Image.new("RGB", size, "white")
        image.paste(color, (0, 0, size[0], size[1] // 2))
        image.save(buffer, "PNG")
        data = {"image/png": base64.b64encode(buffer.getvalue()).decode()}
        output = nbformat.v4.new_output("display_data", data)
        metadata = {"tags": list(tags)} if tags else {}
        return nbformat.v4.new_code_cell("x", outputs=[output], metadata=metadata)

    file, colors = tmp_path / "a.ipynb", {"pale": "#dfe9f2", "curve": "#0072B2"}
    cells = [cell(colors["pale"], (160, 100)), cell(colors["curve"], (150, 100))]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), file)
    assert conf.chosen_figure(file).size == (150, 100)
    cells.append(cell(colors["pale"], (100, 100), ["thumbnail"]))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), file)
    assert conf.chosen_figure(file).size == (100, 100)


FRAME_SHOWS_ALL = "f => f.contentDocument.documentElement.scrollHeight <= f.clientHeight"
CUT_OFF = "pres => pres.filter(pre => pre.scrollWidth > pre.clientWidth + 1).length"
WIDE_ENOUGH = "document.documentElement.scrollWidth <= innerWidth"


def test_pages_open_from_the_disk(site, browser):
    """Without an error or a request that fails; formulas are drawn, frames show their whole player, windows are wide enough."""
    files = pages(site)
    with opened(browser, files[0].as_uri(), offline=True) as page:
        for file in files:
            page.goto(file.as_uri())
            page.evaluate("window.MathJax?.startup.promise.then(() => 0)")
            assert page.locator("mjx-container").count() == read(file).formulas, file.name
            assert page.locator("mjx-merror, mjx-container [data-mml-node=merror]").count() == 0, (
                file.name
            )
            for width in (1000, 400, 1200, 1366, 1600, 1920):
                page.set_viewport_size({"width": width, "height": 900})
                assert page.evaluate(WIDE_ENOUGH), f"{file.name} in {width} pixels"
                if width >= 1000:
                    code = page.locator(".highlight pre, .cell_output pre")
                    assert code.evaluate_all(CUT_OFF) == 0, f"{file.name} in {width} pixels"
                if width == 1000:
                    for frame in page.locator("iframe[srcdoc]").all():
                        frame.scroll_into_view_if_needed()
                        frame.content_frame.locator(".geoflow .way").wait_for(state="attached")
                        assert frame.evaluate(FRAME_SHOWS_ALL), file.name


def test_search_finds_from_the_disk(site, browser):
    with opened(browser, (site / "index.html").as_uri(), offline=True) as page:
        page.get_by_role("textbox", name="Search").fill("geodesic")
        page.keyboard.press("Enter")
        page.locator("#search-results").get_by_role(
            "link", name="01 · The sphere", exact=True
        ).click()
        assert page.url.split("?")[0].endswith("notebooks/01_the_sphere.html")


def test_explorer_plays(site, browser):
    with opened(browser, (site / "index.html").as_uri(), offline=True) as page:
        page.get_by_role("link", name="Explore, live").click()
        frame = page.locator("iframe.explorer").content_frame
        frame.get_by_role("button", name="Play").click()
        way = frame.locator(".way")
        before = way.input_value()
        page.wait_for_timeout(1000)
        assert way.input_value() != before
