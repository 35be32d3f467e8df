"""Settings of Sphinx for `make site`: a gallery of the notebooks, the README and the results.

Nothing is executed or fetched.
"""

import base64
import io
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import nbformat
from PIL import Image, ImageChops, ImageStat
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
# The one file that draws formulas, without fonts. The extension would copy all of its 24 MB.
MATHJAX = files("sphinx-mathjax-offline") / "static/mathjax/tex-svg.js"

project = "geoflow"
extensions = ["myst_nb"]
root_doc = "README"
include_patterns = [
    "README.md",
    "notebooks/GUIDE.md",
    "notebooks/GLOSSARY.md",
    "CONTRIBUTING.md",
    "data/README.md",
    "data/results/README.md",
    "data/results/any-view.md",
    "data/results/flow-map.md",
    "data/results/gpu/README.md",
    "tests/benchmarks/README.md",
    "notebooks/RESULTS.md",
    "notebooks/site/explore.md",
    "notebooks/site/questions.md",
    "notebooks/[0-9][0-9]_*.ipynb",
    "notebooks/solutions/[0-9][0-9]_*.ipynb",
]
exclude_patterns = [".*", "outputs", "geoflow", "tests/fixtures"]  # not to be searched for pages

nb_execution_mode = "off"
nb_render_markdown_format = "myst"  # which has tables
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "geoflow"
html_static_path = ["site.css", "site.js", str(MATHJAX)]
mathjax_path = MATHJAX.name
html_css_files = ["site.css"]
html_js_files = ["site.js"]
templates_path = ["."]
html_context = {"master_doc": "index"}  # the gallery is where the titles of all pages lead
html_copy_source = False
html_use_index = False
html_show_copyright = False
html_show_search_summary = False  # summaries are fetched, which browsers refuse to pages on disk

ROW = re.compile(r"^\| \d\d \| \[.+\]\((.+)\.ipynb\) \| (.+) \| .+ \|$", re.MULTILINE)  # of the README's table of notebooks
CONTENTS = """
```{toctree}
:hidden:

Introduction <self>
How do I …? <notebooks/site/questions>
notebooks/GUIDE
notebooks/GLOSSARY
notebooks/site/explore
notebooks/RESULTS
data/results/README
```

```{toctree}
:hidden:
:caption: Notebooks
:glob:

notebooks/[0-9][0-9]_*
```

```{toctree}
:hidden:
:caption: Solutions
:glob:

notebooks/solutions/*
```

```{toctree}
:hidden:
:caption: The project

CONTRIBUTING
tests/benchmarks/README
data/README
data/results/gpu/README
data/results/any-view
data/results/flow-map
```
"""


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_contents)
    app.connect("html-collect-pages", gallery)


def add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """The sidebar's contents belong to the first page, but not into the file that GitHub shows."""
    if page == root_doc:
        source[0] += CONTENTS


def gallery(app: Sphinx) -> Iterator[tuple[str, dict, str]]:
    """The first page: a card for each row of the README's table."""
    cards = []
    (app.outdir / "_images").mkdir(exist_ok=True)
    for page, learnt in ROW.findall((ROOT / "README.md").read_text(encoding="utf-8")):
        thumbnail = f"_images/{Path(page).name}.webp"
        picture = chosen_figure(ROOT / f"{page}.ipynb")
        picture.thumbnail((640, 400))
        picture.save(app.outdir / thumbnail)
        cards.append(
            {
                "page": page,
                "title": app.env.titles[page].astext(),
                "learnt": learnt,
                "thumbnail": thumbnail,
            }
        )
    yield "index", {"title": "Gallery", "cards": cards}, "gallery.html"


def chosen_figure(notebook: Path) -> Image.Image:
    """The figure of the cell tagged `thumbnail`; else the most vivid of those neither tall nor very wide."""
    cells = nbformat.read(notebook, as_version=4).cells
    tagged = figures([cell for cell in cells if "thumbnail" in cell.metadata.get("tags", [])])
    fitting = [figure for figure in figures(cells) if 1 < figure.width / figure.height < 2.6]
    return tagged[0] if tagged else max(fitting, key=vividness)


def figures(cells: list) -> list[Image.Image]:
    data = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    return [Image.open(io.BytesIO(base64.b64decode(d["image/png"]))).convert("RGB") for d in data if "image/png" in d]


def vividness(figure: Image.Image) -> float:
    """The mean of saturation × brightness, where the pale colours of land and sea count as none."""
    _, saturation, brightness = figure.convert("HSV").split()
    strong = saturation.point(lambda value: value if value > 25 else 0)
    return ImageStat.Stat(ImageChops.multiply(strong, brightness)).mean[0]
