"""Few rows whatever the network: layers in trouble first, and a row for what a state has else."""

from __future__ import annotations

import pytest

from bncli.commands.compare_checkpoints.answer import LEGEND, grouped, layers_answer, severities_of
from bncli.model.changes import Found, How, LayerVersion, Measures, State
from bncli.report import ANSWER_ROWS, Certainty, FailOn, Report, Severity
from tests.findings import finding

MOVED = Measures(batches=40, z_min=1e-7, z_max=0.5, var_ratio_min=0.9, var_ratio_max=150.0)


def version(name: str, state: State, effect: float | None = None) -> LayerVersion:
    measures = MOVED if effect is None else Measures(40, 0.0, effect, effect=effect)
    return LayerVersion(name, name, How.NAME, Certainty.CERTAIN, Found(state), measures)


def answer(layers, *findings):
    report = Report("compare-checkpoints", {}, (), findings)
    (table,) = layers_answer(report, FailOn.ERROR, layers)
    return table


def test_a_column_in_which_nothing_changed_is_left_out():
    still = Measures(0, 0.0, 0.0, 1.0, 1.0, 0.5, 0.0)
    layer = LayerVersion("a", "a", How.NAME, Certainty.CERTAIN, Found(State.WEIGHTS), still)
    assert [column.key for column in answer([layer]).columns] == ["layer", "state", "change"]


def test_few_layers_are_all_shown_in_the_order_of_their_states():
    layers = [
        version("a", State.IDENTICAL),
        version("b", State.TRAINED),
        version("c", State.RESET),
        version("d", State.TRAINED),
    ]
    table = answer(layers)
    assert [row["layer"] for row in table.rows] == ["c", "b", "d", "a"]
    assert table.note == ""
    row = table.rows[1]
    assert (row["moved"], row["ratio"], row["batches"]) == ("<0.001 .. 0.5", "0.9 .. 150", "40")
    assert table.rows[-1]["moved"] is None


def test_the_layers_of_a_state_are_summed_up_but_for_those_that_moved_most():
    layers = [version(f"t{at}", State.TRAINED, effect=at) for at in range(30)]
    layers += [version(f"i{at}", State.IDENTICAL) for at in range(12)]
    table = answer(layers)
    assert [row["layer"] for row in table.rows] == [
        "t29",
        "t28",
        "t27",
        "27 more layers",
        "12 layers",
    ]
    assert table.rows[3]["effect"] == "26"
    assert table.note == (
        "the layers with the greatest effect in each state are named; -v lists each layer; "
        f"{LEGEND}"
    )


def test_layers_with_warnings_stand_before_others_of_their_state():
    layers = [version(f"w{at}", State.WEIGHTS, effect=at) for at in range(40)]
    layers.append(version("lost", State.LOST))
    table = answer(layers, finding(subject="w3", severity="error"), finding(subject="lost"))
    names = [row["layer"] for row in table.rows]
    assert names[:3] == ["lost", "w3", "w39"]
    assert names[-1] == "37 more layers"
    assert len(names) <= ANSWER_ROWS


@pytest.mark.parametrize("layers", [53, 500])
def test_never_more_rows_than_a_screen_holds(layers):
    states = list(State)
    many = [version(f"n{at}", states[at % len(states)], effect=at) for at in range(layers)]
    warned = [finding(subject=layer.name) for layer in many]
    table = answer(many, *warned)
    assert len(table.rows) <= ANSWER_ROWS
    assert {row["state"] for row in table.rows if row["state"]} == {
        row["state"] for row in answer(many[: len(states)], *warned).rows
    }


def test_layers_whose_rows_would_be_alike_have_one():
    layers = [version(f"c{at}", State.CONVENTION) for at in range(19)]
    layers.append(version("o", State.ORDER))
    table = answer(layers, *(finding(subject=layer.name) for layer in layers))
    assert [row["layer"] for row in table.rows] == ["19 layers", "o"]


def test_a_single_layer_of_a_state_has_its_name():
    layers = [version(f"t{at}", State.TRAINED, effect=at) for at in range(9)]
    layers.append(version("same", State.IDENTICAL))
    assert [row["layer"] for row in answer(layers).rows][-1] == "same"


@pytest.mark.parametrize(
    ("change", "said"), [(0.0, "0"), (0.000051, "0.0051%"), (0.024, "2%"), (1.006, "101%")]
)
def test_the_change_of_weights_is_a_percentage(change, said):
    measures = Measures(weight_change=change)
    layer = LayerVersion("a", "a", How.NAME, Certainty.CERTAIN, Found(State.WEIGHTS), measures)
    assert answer([layer]).rows[0]["change"] == said


def test_groups_and_the_worst_finding_of_each():
    layers = [version("a", State.IDENTICAL), version("b", State.TRAINED), version("c", State.RESET)]
    severities = severities_of(
        [finding(subject="a", severity="info"), finding(subject="a", severity="error")]
    )
    assert severities == {"a": Severity.ERROR}
    groups = grouped(layers, severities)
    assert [(group.state, group.severity) for group in groups] == [
        (State.IDENTICAL, Severity.ERROR),
        (State.RESET, None),
        (State.TRAINED, None),
    ]
