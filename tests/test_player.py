"""The player: bad input, answers to what a reader chooses, pages without a kernel, figures.

What a reader does is done by setting values, as the browser does.
"""

import pytest
import torch
from drawn import check_texts_are_inside
from panels import paths

from geoflow import maps, sphere, widgets
from geoflow.viz.packing import Panel
from geoflow.viz.player import TrajectoryPlayer, choice, number

# Bad input: a message in the widget, never a blank cell


def test_points_that_are_nan_are_left_out_and_counted():
    latlon = paths(4, 10)
    latlon[2, 3] = torch.nan
    latlon[4, 7] = torch.inf
    player = TrajectoryPlayer(latlon)
    assert player.panels[0]["count"] == 8
    assert "2 of 10 points are NaN or infinite somewhere" in player.message


@pytest.mark.parametrize(
    ("trajectories", "message"),
    [
        (torch.full((3, 4, 2), torch.nan), "4 of 4 points are NaN"),
        (torch.zeros(5, 2), "shape (5, 2); expected (steps + 1, n, 2)"),
        (torch.zeros(0, 4, 2), "shape (0, 4, 2)"),
        (torch.full((3, 4, 2), 91.0), "latitude 91.0 is not in [-90, 90]"),
        (None, "NoneType"),
        ({}, "no panels"),
    ],
)
def test_what_cannot_be_drawn_is_said(trajectories, message):
    assert message in TrajectoryPlayer(trajectories).message


def test_times_that_do_not_fit_are_said():
    assert "one finite time for each" in TrajectoryPlayer(paths(3, 2), times=[0, 1]).message


@pytest.mark.parametrize("wrong", [dict(projection="globus"), dict(trails="shrot")])
def test_wrong_options_raise(wrong):
    with pytest.raises(ValueError, match="did you mean"):
        TrajectoryPlayer(paths(1, 1), **wrong)


# Answers


def echo(values):
    yield [Panel(torch.zeros(2, 1, 2), title=f"{values['steps']} {values['kind']}")]


def asking(answer=echo) -> TrajectoryPlayer:
    controls = [number("steps", "steps", [1, 2, 256]), choice("kind", "kind", ["a", "b"])]
    return TrajectoryPlayer(controls=controls, values={"steps": 2, "kind": "a"}, answer=answer)


def test_a_new_value_is_answered():
    player = asking()
    assert player.panels[0]["title"] == "2 a"
    player.select(steps=7)
    assert player.panels[0]["title"] == "7 a"


def test_a_question_from_the_browser_is_answered_once_and_numbered():
    asked = []
    player = asking(lambda values: asked.append(values) or echo(values))
    player.set_state({"values": {"steps": 1, "kind": "b"}, "asked": 1})
    assert asked == [{"steps": 2, "kind": "a"}, {"steps": 1, "kind": "b"}]
    assert (player.panels[0]["title"], player.answered) == ("1 b", 1)
    player.set_state(
        {"asked": 2}
    )  # the same values again are a question too: somebody waits for the answer
    assert (len(asked), player.answered) == (3, 2)


def test_an_answer_is_one_message_and_comes_before_its_number(monkeypatch):
    def answer(values):
        yield [Panel(torch.full((2, 1, 2), float(values["steps"])), title=f"{values['steps']}")]

    player, sent = asking(answer), []
    monkeypatch.setattr(player, "_send", lambda message, buffers=None: sent.append(message))
    player.set_state({"values": {"steps": 1, "kind": "b"}, "asked": 1})
    updates = [
        set(message["state"]) | {path[0] for path in message["buffer_paths"]}
        for message in sent
        if message["method"] == "update"
    ]
    assert updates == [{"panels", "data"}, {"answered"}]


@pytest.mark.parametrize("steps", [0, 257, 2.5, "three", True, float("nan")])
def test_wrong_numbers_are_said_and_raised_and_the_player_goes_on(steps):
    player = asking()
    with pytest.raises(ValueError, match="expected a whole number from 1 to 256"):
        player.select(steps=steps)
    assert "expected a whole number from 1 to 256" in player.message
    assert player.panels[0]["title"] == "2 a"
    player.select(steps=3)
    assert (player.message, player.panels[0]["title"]) == ("", "3 a")


def test_a_callback_that_raises_shows_its_message_and_is_raised():
    def broken(values):
        if values["kind"] == "b":
            raise RuntimeError("the model fell over")
        yield from echo(values)

    player = asking(broken)
    with pytest.raises(RuntimeError, match="fell over"):
        player.set_state({"values": {"steps": 1, "kind": "b"}, "asked": 4})
    assert (player.message, player.answered) == ("the model fell over", 4)


def test_unknown_controls_are_named():
    with pytest.raises(ValueError, match="unknown control 'step' .did you mean 'steps'"):
        asking().select(step=3)


# Without a kernel


def test_output_of_a_notebook_holds_the_page_on_request():
    bundle, _ = TrajectoryPlayer(paths(1, 2))._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle and "text/html" not in bundle
    bundle, _ = TrajectoryPlayer(paths(1, 2), keep=True)._repr_mimebundle_()
    assert "iframe" in bundle["text/html"]


def test_embedded_page_is_escaped():
    frame = TrajectoryPlayer(paths(2, 3)).embed(300).data
    assert (
        frame.count("<iframe") == 1
        and frame.count("<script") == 0
        and "&lt;script" in frame
        and "height: 300px" in frame
    )


@pytest.mark.parametrize(
    ("player", "axes"),
    [
        (lambda: TrajectoryPlayer(paths(4, 20), truth=(10, 20), best=[(11, 21), (0, 0)]), 4),
        (lambda: TrajectoryPlayer({"a": paths(4, 20), "b": paths(0, 9)}), 8),
        (lambda: TrajectoryPlayer([Panel(paths(4, 9), note="half of 9 samples " * 4)] * 2), 8),
        (
            lambda: TrajectoryPlayer(
                [Panel(torch.zeros(1, 0, 2), density=widgets.smoothed(sphere.uniform(5)))]
            ),
            2,  # a map and its colour bar
        ),
        (widgets.explore_sphere, 2),
    ],
)
def test_contact_sheet(player, axes):
    figure = player().contact_sheet()
    assert isinstance(figure, maps.MapFigure)
    assert len(figure.axes) == axes
    check_texts_are_inside(figure, "a contact sheet")
