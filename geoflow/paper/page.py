"""The results page: every item with what is printed, ours, and how ours was obtained."""

import os
from pathlib import Path

from geoflow.paper.items import ALL, ITEMS, TEXTS, Results, steps_of
from geoflow.paper.results import Result, read_results
from geoflow.paper.tables import markdown_table


def page(folder, out) -> str:
    """All results below a folder (errors as `read_results`) as Markdown.

    >>> from geoflow.paper.results import COMMITTED
    >>> page(COMMITTED, "RESULTS.md").splitlines()[0]
    "# The paper's tables and figures, run again"

    The links are relative to the page's file, `out`.
    """
    runs = read_results(folder)
    head = ["", "data", "scale", "machine", "minutes", "date", ""]
    rows = [row for name in ITEMS for row in _rows(name, runs)]
    lines = ["# The paper's tables and figures, run again", "", TEXTS["introduction"], ""]
    lines += [markdown_table(head, rows), ""]
    for results in runs.values():
        if results.keys() >= set(steps_of(ALL)):
            own = [results[step] for step in steps_of(ALL)]
            lines += [f"{_command('all', own)}, each step once.", ""]
    for name in ITEMS:
        lines += _section(name, runs, Path(out).parent)
    return "\n".join(lines)


def _rows(name: str, runs: dict[Path, Results]) -> list[list[str]]:
    """What was run of an item: a row for each folder of results."""
    item, rows = ITEMS[name], []
    for results in runs.values():
        own = list(item.done(results).values())
        if own:
            machines = " and ".join(dict.fromkeys(result.machine for result in own))
            last = max(result.date for result in own)
            missing = [step for step in item.steps if step not in results]
            state = f"without {', '.join(missing)}" if missing else "complete"
            numbers = [_data(own), own[0].scale, machines, _minutes(own), last, state]
            rows.append([_link(item.title), *numbers])
    return rows or [[item.title, "", "", "", "", "", "not run"]]


def _section(name: str, runs: dict[Path, Results], base: Path) -> list[str]:
    """An item's tables and figures, one for each folder of results."""
    item, lines = ITEMS[name], []
    for place, results in runs.items():
        if not (done := item.done(results)):
            continue
        lines += [f"{_command(name, list(done.values()))}.", ""]
        if (figure := place / f"{name}.png").exists():
            lines += [f"![{item.title}]({Path(os.path.relpath(figure, base)).as_posix()})", ""]
        lines += [item.table(done), ""]
    return [f"## {item.title}", "", item.note, "", *lines] if lines else []


def _command(name: str, results: list[Result]) -> str:
    command = f"`geoflow reproduce {name} --scale {results[0].scale}`"
    return f"{command}: {_data(results)}, {_minutes(results)} minutes"


def _link(title: str) -> str:
    anchor = "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c == "-")
    return f"[{title}](#{anchor})"


def _data(results: list[Result]) -> str:
    """The data set and the numbers of images."""
    if not any(result.inputs for result in results):
        return "none"
    counts = {
        r.values.get("metrics", {}).get("images") or r.settings.get("images") for r in results
    }
    images = " or ".join(f"{n:,}" for n in sorted(int(count) for count in counts if count))
    return results[0].data + (f": {images} images" if images else "")


def _minutes(results: list[Result]) -> str:
    seconds = sum(result.seconds for result in results)
    return f"{seconds / 60:.1f}" if seconds >= 6 else "< 0.1"
