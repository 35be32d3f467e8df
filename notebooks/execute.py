"""Execute notebooks: the py:percent file is the source, the .ipynb beside it the executed product.

    python notebooks/execute.py                      all of them, in order
    python notebooks/execute.py 01_the_sphere        one (or several); solutions/01_the_sphere for its solutions
    python notebooks/execute.py --check              execute nothing: are the products true to their sources and clean?
    python notebooks/execute.py --text               execute nothing: carry changed text into products whose code is unchanged
    GEOFLOW_SCALE=smoke python notebooks/execute.py  try them in seconds; no product is written

The conversion goes one way. A product is replaced only by a finished run, holds the hash of the code it was run
from, and is the same byte for byte when it is run again on the same machine.
"""

import argparse
import base64
import hashlib
import io
import json
import os
import re
import sys
import time
from pathlib import Path

import jupytext
import nbclient
import nbformat
from nbclient.exceptions import CellControlSignal, DeadKernelError
from PIL import Image

from geoflow.runtime import by_scale, choose, scale

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
MAX_BYTES = 1_500_000
MAX_LINES = 25  # of a code cell, so that it can be read at one glance
COLOURS = 256
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
UNWANTED = {
    "a path of the machine": re.compile(r"(?<![\w+/=.~])(?:/(?:home|Users|root|tmp|private)/|[A-Z]:\\Users\\)"),
    "the address of an object": re.compile(r"\bat 0x[0-9a-fA-F]{6,}"),
    "a progress bar": re.compile(r"\d+%\|"),
}
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class NotebookError(RuntimeError):
    """A notebook that cannot be executed, or not to its end."""


def sources() -> dict[str, Path]:
    """Every notebook's source by name, in reading order: `01_the_sphere`, …, `solutions/01_the_sphere`, …"""
    paths = sorted(FOLDER.glob("[0-9][0-9]_*.py")) + sorted(FOLDER.glob("solutions/[0-9][0-9]_*.py"))
    return {path.relative_to(FOLDER).with_suffix("").as_posix(): path for path in paths}


def digest(notebook) -> str:
    """Hash of a notebook's code, on which its outputs depend."""
    code = [_content(cell) for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()


def execute(source: Path):
    """Run a notebook from its source, in its folder, and return it cleaned.

    Raises:
        NotebookError: a cell failed, a widget's callback failed unseen, or the kernel died; the message names the cell.
    """
    notebook = jupytext.read(source)
    problems = source_problems(notebook)
    if problems:
        raise NotebookError(f"{source.name}: {'; '.join(problems)}")
    started = [0]
    client = nbclient.NotebookClient(
        notebook,
        timeout=by_scale(300, 3600, 36_000),
        record_timing=False,
        shutdown_kernel="immediate",
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # a local kernel need not warn that its sockets are plain TCP
        resources={"metadata": {"path": str(source.parent)}},
        on_cell_start=lambda cell, cell_index: started.append(cell_index),
    )
    # An MPLBACKEND of the caller (Agg, in tests) would leave the notebook without figures.
    inline = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "CI": "1"}
    try:
        client.execute(env={**os.environ, **inline})
    except (CellControlSignal, DeadKernelError) as error:
        raise NotebookError(f"{source.name}, cell {started[-1]}: {ANSI.sub('', str(error))}") from error
    for widget in notebook.metadata.get("widgets", {}).values():
        for model in widget["state"].values():
            for output in model["state"].get("outputs", []):
                if output["output_type"] == "error":
                    raise NotebookError(f"{source.name}: in a widget's callback: {ANSI.sub('', chr(10).join(output['traceback']))}")
    return _clean(notebook, source)


def _clean(notebook, source: Path):
    """Keep what a reader needs: fixed ids and metadata, neither widget state nor what went to stderr."""
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{i:03d}"
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if _keep(output, f"{source.name}, cell {i}")]
        for output in cell.outputs:
            if "text" in output:
                output["text"] = _relative(output["text"])
            data = output.get("data", {})
            for kind in data:
                if kind.startswith("text/"):
                    data[kind] = _relative(data[kind])
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": KERNELSPEC, "language_info": {"name": "python"}, "geoflow": {"code_sha256": digest(notebook)}}
    )
    nbformat.validate(notebook)
    return notebook


def _keep(output, where: str) -> bool:
    if output.get("name") == "stderr":
        print(f"  {where}, stderr (not kept):\n{output['text']}", file=sys.stderr)
        return False
    data = output.get("data", {})
    return data.pop(WIDGET_VIEW, None) is None or "text/html" in data  # a player that was told to stay brings its page


def _relative(text: str) -> str:
    return text.replace(f"{ROOT}{os.sep}", "").replace(str(ROOT), ".").replace(str(Path.home()), "~")


def _quantise(png: str) -> str:
    """The figure in at most 256 colours, when that is smaller: about a quarter of the size.

    They are spread over all colours of the figure, so that a colour bar of few pixels keeps its shades.
    """
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    buffer = io.BytesIO()
    few = flat.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    few.save(buffer, "PNG", optimize=True)
    small = base64.b64encode(buffer.getvalue()).decode()
    return min(png, small, key=len)


def write(notebook, source: Path) -> Path:
    """Replace the product beside the source in one step, with small figures: a reader never meets half a notebook."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = _quantise(output.data["image/png"])
    product = source.with_suffix(".ipynb")
    partial = product.with_suffix(".partial")
    nbformat.write(notebook, partial)
    partial.replace(product)
    return product


def update_text(source: Path) -> Path:
    """Carry the source's text into the product, whose outputs stay.

    Raises:
        NotebookError: there is no product, or it was run from other code.
    """
    product = source.with_suffix(".ipynb")
    expected, notebook = jupytext.read(source), nbformat.read(product, as_version=4) if product.exists() else nbformat.v4.new_notebook()
    if notebook.metadata.get("geoflow", {}).get("code_sha256") != digest(expected):
        raise NotebookError(f"{source.name}: its code has changed since the last run, or was never run; execute it")
    executed = iter([cell for cell in notebook.cells if cell.cell_type == "code"])
    notebook.cells = [next(executed) if cell.cell_type == "code" else cell for cell in expected.cells]
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{i:03d}"
    return write(notebook, source)


def source_problems(notebook) -> list[str]:
    """What is wrong with a notebook before it runs."""
    problems = []
    name = notebook.metadata.get("kernelspec", {}).get("name")
    if name != KERNELSPEC["name"]:
        problems.append(f"kernel {name!r} in the header; expected {KERNELSPEC['name']!r}")
    if not notebook.cells or notebook.cells[0].cell_type != "markdown" or not notebook.cells[0].source.startswith("# "):
        problems.append("the first cell is not a markdown title (# …)")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if not code or "parameters" not in code[0].metadata.get("tags", []):
        problems.append("the first code cell is not tagged 'parameters'")
    problems += [f"cell {i} is empty" for i, cell in enumerate(notebook.cells) if not cell.source.strip()]
    lines = {i: cell.source.count("\n") + 1 for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"}
    problems += [f"cell {i} has {n} lines of code; expected at most {MAX_LINES}" for i, n in lines.items() if n > MAX_LINES]
    return problems


def product_problems(source: Path) -> list[str]:
    """What is wrong with a notebook's executed product: nothing is executed."""
    product = source.with_suffix(".ipynb")
    if not product.exists():
        return [f"{product.name} is missing"]
    expected, notebook = jupytext.read(source), nbformat.read(product, as_version=4)
    problems = source_problems(expected)
    if [_content(cell) for cell in expected.cells] != [_content(cell) for cell in notebook.cells]:
        problems.append("its cells are not those of the source")
    if notebook.metadata.get("geoflow", {}).get("code_sha256") != digest(expected):
        problems.append("its outputs are stale: the code has changed since")
    if notebook.metadata.get("kernelspec") != KERNELSPEC or "widgets" in notebook.metadata:
        problems.append("its metadata is not what execution writes")
    if product.stat().st_size > MAX_BYTES:
        problems.append(f"it has {product.stat().st_size:,} bytes; expected at most {MAX_BYTES:,}")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        problems.append("its execution counts are not 1, 2, 3, …")
    for i, cell in enumerate(code, start=1):
        for output in cell.outputs:
            if output.output_type == "error":
                problems.append(f"[{i}] holds an error: {output.ename}")
            text = "\n".join([str(output.get("text", "")), *(str(v) for k, v in output.get("data", {}).items() if k.startswith("text/"))])
            problems += [f"[{i}] holds {what}: {found[0]!r}" for what, pattern in UNWANTED.items() if (found := pattern.search(text))]
    return problems


def _content(cell):
    return cell.cell_type, cell.source, cell.metadata.get("tags", [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as 01_the_sphere; all without one")
    parser.add_argument("--check", action="store_true", help="execute nothing; check the products")
    parser.add_argument("--text", action="store_true", help="execute nothing; carry changed text into the products")
    arguments = parser.parse_args()
    known = sources()
    try:
        chosen = {choose("notebook", name, known): known[name] for name in arguments.names} or known
    except ValueError as error:
        parser.error(str(error))

    failed = False
    for name, source in chosen.items():
        if arguments.check:
            problems = product_problems(source)
            failed |= bool(problems)
            print("\n".join(f"{name}: {problem}" for problem in problems) or f"{name}: fresh")
            continue
        start = time.monotonic()
        try:
            if arguments.text:
                print(update_text(source))
                continue
            notebook = execute(source)
            size = f"{write(notebook, source).stat().st_size / 1000:.0f} kB" if scale() != "smoke" else "smoke: not written"
            print(f"{name}: {time.monotonic() - start:.0f} s, {size}", flush=True)
        except NotebookError as error:
            failed = True
            print(f"{error}\n{name}: failed; the product is left as it was", file=sys.stderr)
    if failed:
        sys.exit("mend it with: make notebooks" if arguments.check else 1)


if __name__ == "__main__":
    main()
