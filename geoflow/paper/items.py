"""The items: the paper's tables and figures, each made of the results of steps, with a note."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from geoflow.paper import figures, point_sets, tables
from geoflow.paper.results import Result
from geoflow.scores.evaluation import Report

TEXTS = tables.read_yaml("items")
Results = dict[str, Result]  # by step


@dataclass(frozen=True)
class Item:
    """A table or figure of the paper; see `data/paper/items.yaml`."""

    title: str
    steps: list[str]
    note: str
    table: Callable[[Results], str]  # as Markdown
    figure: Callable[[Results], Any] | None = None  # None for a table
    shows: tuple[str, ...] | list[str] = ()  # data sets of which the paper has it

    def done(self, results: Results) -> Results:
        """Those of some results that it shows."""
        return {step: results[step] for step in self.steps if step in results}

    def state(self, results: Results) -> str:
        """Which steps some results lack, on which data they are, and on which they are not."""
        missing = [step for step in self.steps if step not in results]
        text = f"without {', '.join(missing)}" if missing else "all steps"
        own = {tables.first_word(result.data) for result in results.values()}
        absent = [tables.named(name) for name in self.shows if name not in own]
        if self.shows:
            text += f", on {' and '.join(tables.named(name) for name in sorted(own))}"
        return text + (f"; not on {', '.join(absent)}" if absent else "")


def table_item(name: str) -> Item:
    """A table of the paper, of our data set or else of OpenStreetView-5M, beside our scores."""
    scored = [step for step in TEXTS[name]["steps"] if step.startswith("score-")]

    def table(results: Results) -> str:
        done = [step for step in scored if step in results]
        if not done:
            return "none of its rows has been scored"
        reports = {step: Report(**results[step].values) for step in done}
        dataset = tables.first_word(reports[done[0]].dataset)
        fitting = (name, f"{name}-{dataset}", f"{name}-osv5m")
        printed = next(table for table in fitting if table in tables.names())
        return tables.table(printed, reports, dataset).markdown(notes=False)

    return Item(**TEXTS[name], table=table)


def figure_item(name: str) -> Item:
    """A figure drawn from the values of its step, or of several by method, and its table."""
    number = name.removeprefix("fig").lower()
    draw, numbers = (getattr(figures, f"{kind}_{number}") for kind in ("figure", "numbers"))

    def values(results: Results) -> dict[str, Any]:
        found = {step.removeprefix(f"{name}-"): result.values for step, result in results.items()}
        return found.get(name, found)

    return Item(**TEXTS[name], table=lambda r: numbers(values(r)), figure=lambda r: draw(values(r)))


def runs_and_densities(results: Results) -> tuple[list[dict], dict[str, dict], list[dict]]:
    """Runs on earth events, events → packed density map, and runs that take each place once."""
    runs: dict[bool, list[dict]] = {False: [], True: []}
    densities = {}
    for step, result in results.items():
        runs[step.endswith("-distinct")] += result.values.get("runs", [])
        if "density" in result.values:
            densities[step.split("-")[1]] = result.values["density"]
    return runs[False], densities, runs[True]


def events_table(results: Results) -> str:
    """Three tables of test NLL, and the integrals of the densities."""
    runs, densities, distinct = runs_and_densities(results)
    integrals = [f"{name} {density['integral']:.4f}" for name, density in densities.items()]
    parts = [
        point_sets.table(runs),
        "Our models of this table, judged by the test events at places that training did not have "
        "(no such numbers are published):",
        point_sets.table(runs, "new", published=False),
        "Trained and judged with each place taken once:",
        point_sets.table(distinct, published=False),
        f"Integrals of the maps, of split 0: {', '.join(integrals)}.",
    ]
    if "events-volcano-integral" in results:
        found = results["events-volcano-integral"].values
        number = f"{found['integral']:.4f} ± {found['error']:.4f}"
        parts.append(f"Integral of volcano by importance sampling, without a grid: {number}.")
    return "\n\n".join(parts)


ITEMS = {
    **{name: table_item(name) for name in ("table1", "table2", "tableB")},
    **{f"fig{number}": figure_item(f"fig{number}") for number in "124567A"},
    "tableA": table_item("tableA"),
    "earth-events": Item(
        **TEXTS["earth-events"],
        table=events_table,
        figure=lambda r: figures.figure_events(*runs_and_densities(r)[:2]),
    ),
}
ALL = tuple(name for name in ITEMS if name != "earth-events")  # the paper's own

# Figures of the paper with nothing to compute, and where to look.
ELSEWHERE = {
    "fig3": "figure 3 is a scheme of what figure 1 shows: `geoflow reproduce fig1`",
    "figB": "figure B draws the architecture: notebook 04 builds and draws it",
}


def origins(results: Results) -> str:
    """How the scores among some results were obtained, a row for each step, as Markdown."""
    head = ["step", "method", "images", "samples, answer", "ω", "schedule", "solver", "seeds"]
    head += ["ms per image, whole evaluation", "machine"]
    rows = []
    for step in steps_of(ITEMS):
        if step.startswith("score-") and step in results:
            report = Report(**results[step].values)
            how: dict[str, Any] = report.settings
            images, solver = int(report.metrics["images"]), ""
            if "solver" in how:
                solver = f"{how['solver']}, {how['steps']} steps, {how['evaluations']} evaluations"
            row = [step, how["method"], images, f"{how['samples']}, {how['answer']}"]
            row += [how["guidance"], how.get("schedule", ""), solver]
            row += [", ".join(map(str, how["seeds"])), f"{1000 * report.seconds / images:.0f}"]
            rows.append([*row, report.machine])
    return tables.markdown_table(head, rows) if rows else ""


def steps_of(names: Iterable[str]) -> list[str]:
    """The steps of some items, each once."""
    return list(dict.fromkeys(step for name in names for step in ITEMS[name].steps))
