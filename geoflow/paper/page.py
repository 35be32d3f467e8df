"""The results page: every item with what is printed, ours, and how ours was obtained."""

import os
from pathlib import Path

from geoflow.paper.items import ALL, ITEMS, TEXTS, Results, steps_of
from geoflow.paper.results import Result, read_results
from geoflow.paper.tables import markdown_table


def page(folder, out) -> str:
    """All results below a folder (errors as `read_results`) as Markdown for the file `out`."""
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
    anchor = "".join(c for c in item.title.lower().replace(" ", "-") if c.isalnum() or c == "-")
    for results in runs.values():
        if own := list(item.done(results).values()):
            machines = " and ".join(dict.fromkeys(result.machine for result in own))
            last = max(result.date for result in own)
            missing = [step for step in item.steps if step not in results]
            state = f"without {', '.join(missing)}" if missing else "complete"
            numbers = [_data(own), own[0].scale, machines, _minutes(own), last, state]
            rows.append([f"[{item.title}](#{anchor})", *numbers])
    return rows or [[item.title, "", "", "", "", "", "not run"]]


def _section(name: str, runs: dict[Path, Results], base: Path) -> list[str]:
    """An item's tables and figures, one for each folder of results; links relative to `base`."""
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


def _data(results: list[Result]) -> str:
    """The data set and the numbers of images."""
    if not any(result.inputs for result in results):
        return "none"
    numbers = [result.settings | result.values.get("metrics", {}) for result in results]
    counts = {int(found["images"]) for found in numbers if found.get("images")}
    images = " or ".join(f"{n:,}" for n in sorted(counts))
    return results[0].data + (f": {images} images" if images else "")


def _minutes(results: list[Result]) -> str:
    seconds = sum(result.seconds for result in results)
    return f"{seconds / 60:.1f}" if seconds >= 6 else "< 0.1"
