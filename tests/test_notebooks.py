"""Every notebook is a test: its product is fresh and clean, and it runs from top to bottom. And the tool that executes them."""

import execute
import nbformat
import pytest

SOURCES = execute.sources()
HEADER = "# ---\n# jupyter:\n#   kernelspec:\n#     display_name: Python 3 (ipykernel)\n#     language: python\n#     name: python3\n# ---\n\n"
TITLE = HEADER + '# %% [markdown]\n# # A title\n\n# %% tags=["parameters"]\nseed = 0\n'


@pytest.mark.parametrize("name", SOURCES)
def test_product_is_fresh_and_clean(name):
    assert execute.product_problems(SOURCES[name]) == []


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.slow
def test_runs_in_smoke_mode(name, monkeypatch):
    monkeypatch.setenv("GEOFLOW_SCALE", "smoke")
    execute.execute(SOURCES[name])


def test_product_is_reproducible_and_its_changes_are_seen(tmp_path, capsys):
    source = tmp_path / "01_a.py"
    figure = "import matplotlib.pyplot as plt\nplt.plot(range(9))\nplt.show()\n"
    source.write_text(
        TITLE
        + "\n# %%\nimport sys\nprint('a', 'warning', file=sys.stderr)\nprint(seed)\n\n# %%\n"
        + figure
    )
    product = execute.write(execute.execute(source), source)
    first = product.read_bytes()
    assert execute.product_problems(source) == []
    assert "a warning" in capsys.readouterr().err
    assert b"a warning" not in first
    assert b"image/png" in first
    assert execute.write(execute.execute(source), source).read_bytes() == first

    notebook = nbformat.read(product, as_version=4)
    notebook.cells[2].outputs[0].text = "/home/someone/data\n"
    notebook.cells[2].execution_count = 7
    nbformat.write(notebook, product)
    assert execute.product_problems(source) == [
        "its execution counts are not 1, 2, 3, …",
        "[2] holds a path of the machine: '/home/'",
    ]
    product.write_bytes(first)
    source.write_text(source.read_text().replace("seed = 0", "seed = 1"))
    assert execute.product_problems(source) == [
        "its cells are not those of the source",
        "its outputs are stale: the code has changed since",
    ]
    with pytest.raises(execute.NotebookError, match="its code has changed since the last run"):
        execute.update_text(source)


def test_changed_text_is_carried_into_the_product_but_no_changed_code(tmp_path):
    source = tmp_path / "01_a.py"
    source.write_text(TITLE + "\n# %%\nprint(seed)\n")
    with pytest.raises(execute.NotebookError, match="never run"):
        execute.update_text(source)
    product = execute.write(execute.execute(source), source)
    before = nbformat.read(product, as_version=4).cells[-1].outputs
    source.write_text(
        source.read_text().replace("A title", "Another title") + "\n# %% [markdown]\n# the end\n"
    )
    assert execute.product_problems(source) == ["its cells are not those of the source"]
    execute.update_text(source)
    assert execute.product_problems(source) == []
    cells = nbformat.read(product, as_version=4).cells
    assert "Another title" in cells[0].source
    assert cells[-1].source == "the end"
    assert cells[-2].outputs == before


def test_failing_cell_is_named(tmp_path):
    source = tmp_path / "01_a.py"
    source.write_text(TITLE + "\n# %%\n1 / 0\n")
    with pytest.raises(execute.NotebookError, match=r"(?s)01_a.py, cell 2.*ZeroDivisionError"):
        execute.execute(source)


def test_failing_callback_of_a_widget_is_seen(tmp_path):
    source = tmp_path / "01_a.py"
    widget = "import ipywidgets\nslider = ipywidgets.IntSlider()\nipywidgets.interactive_output(lambda x: 1 / x, {'x': slider})\n"
    source.write_text(TITLE + "\n# %%\n" + widget)
    with pytest.raises(execute.NotebookError, match=r"(?s)callback.*ZeroDivisionError"):
        execute.execute(source)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (HEADER + "# %% [markdown]\n# text\n\n# %% tags=['parameters']\nx = 1\n", "title"),
        (HEADER + "# %% [markdown]\n# # A title\n\n# %%\nx = 1\n", "parameters"),
        (
            TITLE + "\n# %%" + "\nx = 1" * 26 + "\n",
            "cell 2 has 26 lines of code; expected at most 25",
        ),
        (TITLE.replace("python3", "mine"), "kernel 'mine'"),
    ],
)
def test_malformed_source_does_not_run(tmp_path, text, problem):
    source = tmp_path / "01_a.py"
    source.write_text(text)
    with pytest.raises(execute.NotebookError, match=problem):
        execute.execute(source)
