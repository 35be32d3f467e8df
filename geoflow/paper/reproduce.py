"""The paper's tables and figures, run again: steps → result files → tables, figures and a page.

An item (`table1`, `fig5`, …) is made of steps. The numbers of a step are one JSON file: what was
computed, from which weights and data (SHA-256), with which settings, on which machine, in how many
seconds. A step whose file is there is not computed again; a file that was made from something else
is refused, never overwritten. Tables and figures are drawn from the files alone.

On Earth tiles everything runs with the shipped models. The same items run on OpenStreetView-5M,
iNat21 or YFCC4k, given shards of embeddings and a folder of models. The item `earth-events`, a
table of other papers, has data of its own and trains its flows.
"""

import datetime
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import geoflow
from geoflow.paper import figures
from geoflow.paper.items import ALL, ELSEWHERE, ITEMS, Results, steps_of
from geoflow.paper.materials import SCALES, Materials
from geoflow.paper.page import page
from geoflow.paper.results import (
    COMMITTED,
    Result,
    difference,
    read_result,
    read_results,
    write_result,
)
from geoflow.paper.steps import STEPS
from geoflow.runtime import choose, machine, write_atomically

__all__ = [
    *("ALL", "COMMITTED", "ELSEWHERE", "ITEMS", "SCALES", "STEPS", "Result", "Setup", "chosen"),
    *("page", "read_result", "read_results", "run"),
]


class Setup(Materials):
    """One scale, one data set, one model per method, and the results of steps on them.

    >>> Setup("smoke", out="/tmp/geoflow-example").folder_for("fig4").name
    'tiles-smoke'

    Args:
        scale, models, data, log: see `Materials`.
        out: folder; results go to `DATA-SCALE/` in it.
        committed: folder with results that are taken where they fit; None: nothing is.
        say: the older name of `log`.

    Raises:
        ValueError, FileNotFoundError: see `Materials`.
    """

    def __init__(
        self,
        scale: str,
        out="outputs/reproduce",
        models=None,
        data=None,
        committed=None,
        log: Callable[[str], None] = print,
        say: Callable[[str], None] | None = None,
    ):
        super().__init__(scale, out, models, data, say or log)
        self.committed = None if committed is None else Path(committed)
        self._results: dict[str, Result] = {}

    def folder_for(self, step: str) -> Path:
        """Where the result of a step goes."""
        return self.folder_of_data(STEPS[step].data or self.data)

    def result(self, name: str) -> Result:
        """The result of a step: read, or computed and written.

        Raises:
            ValueError: the file that is there was made from something else, or by another version.
            FileNotFoundError: a model or data is missing.
        """
        if name not in self._results:
            step = STEPS[choose("step", name, STEPS)]
            networks = {key: self.result(other) for key, other in step.after.items()}
            asked = {
                "step": name,
                "scale": self.scale,
                "data": step.data or self.data,
                "inputs": step.inputs(self)
                | {key: result.values["weights"] for key, result in networks.items()},
                "settings": step.settings(self.scale),
                "geoflow": geoflow.__version__,
            }
            self._results[name] = self._found(asked) or self._computed(asked)
        return self._results[name]

    def _found(self, asked: dict[str, Any]) -> Result | None:
        """The result that was asked for, among those there are."""
        folder, name = self.folder_for(asked["step"]), f"{asked['step']}.json"
        if (file := folder / name).exists():
            result = read_result(file)
            if why := difference(result, asked):
                advice = "nothing was overwritten: choose another --out, or delete it"
                raise ValueError(f"{file} {why}; {advice}")
            return result
        if self.committed is not None and (file := self.committed / folder.name / name).exists():
            result = read_result(file)
            if not (why := difference(result, asked)):
                return result
            self.log(f"{file} {why}: computed anew")
        return None

    def _computed(self, asked: dict[str, Any]) -> Result:
        """The result that was asked for, computed and written."""
        name = asked["step"]
        self.log(f"{name} …")
        start = time.perf_counter()
        values = STEPS[name].compute(self, **asked["settings"])
        # A training that was interrupted took longer than its last part.
        seconds = max(time.perf_counter() - start, values.get("seconds", 0.0))
        today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        took = {"seconds": round(seconds, 1), "machine": machine(), "date": today}
        file = self.folder_for(name) / f"{name}.json"
        write_result(file, Result(**asked, values=values, **took))
        return read_result(file)  # Everybody else reads the file, so this call does too.


def chosen(names: Iterable[str]) -> list[str]:
    """Check names of items; `all` stands for the paper's.

    >>> chosen(["fig5", "table1"])
    ['table1', 'fig5']

    Raises:
        ValueError: an unknown name, or one that has nothing to compute; the message lists what
            there is.
    """
    found: list[str] = []
    for name in names:
        if name in ELSEWHERE:
            raise ValueError(f"{ELSEWHERE[name]}; there are {', '.join(ITEMS)}")
        found += ALL if name == "all" else [choose("table or figure", name, (*ITEMS, "all"))]
    return [name for name in ITEMS if name in found]


def run(names: Iterable[str], setup: Setup) -> dict[str, Results]:
    """Compute what is missing of some items, and write each item's table or figure.

    A step that fails is told, and the others go on.

    >>> setup = Setup("smoke", "/tmp/geoflow-example", log=lambda line: None)
    >>> sorted(run(["fig4"], setup)["fig4"]["fig4"].values["kappa"])
    ['as printed', 'linear', 'sigmoid', 'skewed-sigmoid']

    Returns:
        Item → step → result.

    Raises:
        ValueError: an unknown item; or, at the end, what failed.
    """
    names, failed = chosen(names), {}
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
            text = ITEMS[name].table(found[name])
            setup.log(f"\n{text}\n")
            file = setup.folder_for(ITEMS[name].steps[0]) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file.with_suffix(".md"), text + "\n")
            if (draw := ITEMS[name].figure) is not None:
                figures.save(draw(found[name]), file.with_suffix(".png"))
    if failed:
        count = f"{len(failed)} step{'s' * (len(failed) > 1)} failed"
        raise ValueError(f"{count}: {'; '.join(failed.values())}")
    return found


def estimate(names: Iterable[str], setup: Setup) -> str:
    """How many steps of some items are done, in words."""
    steps = steps_of(chosen(names))
    done = sum((setup.folder_for(step) / f"{step}.json").exists() for step in steps)
    return f"{done} of {len(steps)} steps are done"
