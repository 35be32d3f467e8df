"""The paper's tables and figures, run again: steps → result files → tables, figures and a page.

An item (`table1`, `fig5`, …) is made of steps. The numbers of a step are one JSON file, with what
they were computed from, how, on which machine, in how many seconds. A step whose file is there is
not computed again; a file that was made from something else is refused, never overwritten. Tables
and figures are drawn from the files alone. Data are Earth tiles, or shards with a folder of models;
`earth-events`, a table of other papers, has data of its own and trains its flows.
"""

import datetime
import os
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import geoflow
from geoflow.paper.items import ALL, ELSEWHERE, ITEMS, TEXTS, Item, Results, origins, steps_of
from geoflow.paper.materials import Materials
from geoflow.paper.results import COMMITTED as COMMITTED
from geoflow.paper.results import Result, read_result, read_results
from geoflow.paper.steps import STEPS, settings_of
from geoflow.paper.tables import first_word, markdown_table, named
from geoflow.runtime import choose, machine, write_atomically, write_json
from geoflow.viz.charts import save_figure


class Setup(Materials):
    """Models and data of `Materials`, and the results of steps on them.

    >>> import tempfile
    >>> setup = Setup("smoke", tempfile.mkdtemp(), log=lambda line: None)
    >>> setup.result("fig4").settings
    {'points': 101}
    """

    def folder_for(self, step: str) -> Path:
        """Where the result of a step goes."""
        return self.folder_of_data(STEPS[step].data or self.data)

    def result(self, name: str) -> Result:
        """The result of a step: read, or computed and written.

        ValueError if the file that is there was made from something else.
        """
        if name not in self.results:
            step = STEPS[choose("step", name, STEPS)]
            inputs = step.inputs(self)
            inputs |= {key: self.result(s).values["weights"] for key, s in step.after.items()}
            asked: dict[str, Any] = {"geoflow": geoflow.__version__, "inputs": inputs}
            asked |= {"step": name, "scale": self.scale, "data": step.data or self.data}
            asked["settings"] = settings_of(name, self.scale)
            self.results[name] = self._found(asked) or self._computed(asked)
        return self.results[name]

    def _found(self, asked: dict[str, Any]) -> Result | None:
        """The result that was asked for, among those there are."""
        own = self.folder_for(asked["step"]) / f"{asked['step']}.json"
        kept = [self.committed / own.parent.name / own.name] if self.committed is not None else []
        for file in filter(Path.exists, [own, *kept]):
            result = read_result(file)
            if not (why := result.difference(asked)):
                return result
            if file == own:
                advice = "nothing was overwritten: choose another --out, or delete it"
                raise ValueError(f"{file} {why}; {advice}")
            self.log(f"{file} {why}: computed anew")
        return None

    def _computed(self, asked: dict[str, Any]) -> Result:
        """The result that was asked for: computed, written, and read from its file."""
        name = asked["step"]
        file = self.folder_for(name) / f"{name}.json"
        self.log(f"{name} …")
        start = time.perf_counter()
        values = STEPS[name].compute(self, **asked["settings"])
        # An interrupted training took longer than its last part.
        seconds = max(time.perf_counter() - start, values.get("seconds", 0.0))
        today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        obtained = dict(seconds=round(seconds, 1), machine=machine(), date=today)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, asdict(Result(**asked, values=values, **obtained)))
        return read_result(file)


def chosen(names: Iterable[str]) -> list[str]:
    """Names of items in their order, checked (ValueError); `all` stands for the paper's."""
    found: list[str] = []
    for name in names:
        if name in ELSEWHERE:
            raise ValueError(f"{ELSEWHERE[name]}; there are {', '.join(ITEMS)}")
        found += ALL if name == "all" else [choose("table or figure", name, (*ITEMS, "all"))]
    return [name for name in ITEMS if name in found]


def run(names: Iterable[str], setup: Setup) -> dict[str, Results]:
    """Compute what is missing of some items, and write each item's table or figure.

    The results are item → step → result. A failed step is reported, and the others go on; a
    ValueError tells at the end what failed.

    >>> import tempfile
    >>> setup = Setup("smoke", tempfile.mkdtemp(), log=lambda line: None)
    >>> sorted(run(["fig4"], setup)["fig4"]["fig4"].values["kappa"])
    ['as printed', 'linear', 'sigmoid', 'skewed-sigmoid']
    """
    names, failed = chosen(names), {}
    files = [setup.folder_for(step) / f"{step}.json" for step in steps_of(names)]
    setup.log(f"{sum(file.exists() for file in files)} of {len(files)} steps are done")
    found: dict[str, Results] = {}
    for name in names:
        found[name] = {}
        for step in ITEMS[name].steps:
            try:
                found[name][step] = setup.result(step)
            except (ValueError, OSError, FloatingPointError) as error:
                failed[step] = f"{step}: {error}"
                setup.log(failed[step])
        if found[name]:
            parts = ITEMS[name].table(found[name]), origins(found[name])
            text = "\n\n".join(filter(None, parts))
            setup.log(f"\n{text}\n")
            file = setup.folder_for(ITEMS[name].steps[0]) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file.with_suffix(".md"), text + "\n")
            if (draw := ITEMS[name].figure) is not None:
                save_figure(draw(found[name]), file.with_suffix(".png"))
    if failed:
        count = f"{len(failed)} step{'s' * (len(failed) > 1)} failed"
        raise ValueError(f"{count}: {'; '.join(failed.values())}")
    return found


def page(folder, out) -> str:
    """All results below a folder (errors as `read_results`) as Markdown for the file `out`."""
    runs, rows, sections = read_results(folder), [], []
    for name, item in ITEMS.items():
        shown = {place: done for place, results in runs.items() if (done := item.done(results))}
        rows += [_row(item, results) for results in shown.values()]
        rows += [] if shown else [[item.title, *[""] * 5, "not run"]]
        sections += [f"## {item.title}", "", item.note, ""] if shown else []
        for place, results in shown.items():
            sections += [f"{_command(name, list(results.values()))}.", ""]
            if (figure := place / f"{name}.png").exists():
                link = Path(os.path.relpath(figure, Path(out).parent)).as_posix()
                sections += [f"![{item.title}]({link})", ""]
            sections += [item.table(results), ""]
    for results in runs.values():
        if table := origins(results):
            data = next(iter(results.values())).data
            sections += [f"## How the scores on {data} were obtained", "", table, ""]
            sections += [TEXTS["times"], ""]
    figures = [f"[Figure {name.removeprefix('fig')}](#what-is-absent)" for name in ELSEWHERE]
    rows += [[figure, *[""] * 5, "absent: nothing to compute"] for figure in figures]
    sections += ["## What is absent", "", TEXTS["absent"], *_absent(runs.values()), ""]
    head = ["", "data", "scale", "machine", "minutes", "date", "what is there"]
    lines = ["# The paper's tables and figures, run again", "", TEXTS["introduction"], ""]
    lines += [markdown_table(head, rows), ""]
    for results in runs.values():
        if results.keys() >= set(steps_of(ALL)):
            own = [results[step] for step in steps_of(ALL)]
            lines += [f"{_command('all', own)}, each step once.", ""]
    return "\n".join(lines + sections).rstrip() + "\n"


def _absent(runs: Iterable[Results]) -> list[str]:
    """What the paper has and no results are of, as lines of a list."""
    run = {first_word(result.data) for results in runs for result in results.values()}
    shown = dict.fromkeys(data for item in ITEMS.values() for data in item.shows)
    parts = {
        data: [item.title.split(":")[0] for item in ITEMS.values() if data in item.shows]
        for data in shown
        if data not in run
    }
    lines = [f"- {named(data)}: its parts of {', '.join(items)}" for data, items in parts.items()]
    return lines + [f"- {text[0].upper()}{text[1:]}" for text in ELSEWHERE.values()]


def _row(item: Item, results: Results) -> list[str]:
    """What was run of an item, in one folder of results."""
    own = list(results.values())
    anchor = "".join(c for c in item.title.lower().replace(" ", "-") if c.isalnum() or c == "-")
    machines = " and ".join(dict.fromkeys(result.machine for result in own))
    numbers = [_data(own), own[0].scale, machines, _minutes(own), max(r.date for r in own)]
    return [f"[{item.title}](#{anchor})", *numbers, item.state(results)]


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
