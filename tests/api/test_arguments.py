"""The arguments of the functions are the flags of the commands, by their names."""

from __future__ import annotations

import pytest
import typer

from bncli.api.arguments import LEFT_OUT, NOT_GIVEN, arguments_of, path_of, signature_of
from bncli.cli import build_app
from bncli.commands import COMMANDS
from bncli.report import FailOn


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_is_an_argument_or_left_out(name):
    """By what Typer mounts, which knows nothing of the Python interface."""
    typed = typer.main.get_command(build_app((name,))).commands[name.replace("_", "-")]
    flags = {}
    for param in typed.params:
        if param.param_type_name == "option":
            long = next(each for each in param.opts if each.startswith("--"))
            flags[long] = param
    arguments = {each.flag: each for each in arguments_of(name) if not each.positional}
    left_out = {f"--{each.replace('_', '-')}" for each in LEFT_OUT}
    assert set(flags) - left_out == set(arguments)
    for flag, argument in arguments.items():
        assert argument.name.rstrip("_").replace("_", "-") == flag[2:]
        assert argument.off == next(iter(flags[flag].secondary_opts), "")
        assert argument.field == flags[flag].name
        assert argument.many == flags[flag].multiple
    inputs = [each for each in typed.params if each.param_type_name == "argument"]
    given = [each for each in arguments_of(name) if each.positional]
    assert [(each.name, each.nargs == -1) for each in inputs] == [
        (each.field, each.many) for each in given
    ]


def test_names_that_python_keeps_have_an_underscore():
    assert {"from_", "to"} < set(signature_of("conventions").parameters)
    assert "try_" in signature_of("diagnose").parameters
    assert "with_" in signature_of("compare_checkpoints").parameters
    assert "input" in signature_of("diff").parameters
    for name in COMMANDS:
        assert all(each.isidentifier() for each in signature_of(name).parameters)


def test_a_momentum_of_none_is_another_than_none_given():
    momentum = {name: signature_of(name).parameters["momentum"] for name in ("compute", "diff")}
    assert {each.default for each in momentum.values()} == {NOT_GIVEN}
    assert str(momentum["compute"]) == "momentum=..."
    assert signature_of("recalibrate").parameters["momentum"].default is None


def test_what_takes_objects_is_what_takes_paths_of_inputs():
    takes = {
        (name, each.name) for name in COMMANDS for each in arguments_of(name) if each.takes_objects
    }
    for yes in (
        ("compute", "inputs"),
        ("compute", "state"),
        ("compute", "weight"),
        ("diagnose", "given"),
        ("diagnose", "data"),
        ("diagnose", "metric"),
        ("diagnose", "reference"),
        ("recalibrate", "stats"),
        ("capture", "checkpoint"),
        ("compare_checkpoints", "with_"),
        ("trace", "grad_output"),
        ("diff", "input"),
    ):
        assert yes in takes  # fmt: skip
    for no in (
        "baseline",
        "select",
        "save_stats",
        "save_output",
        "save_checkpoint",
        "plot",
        "layer",
        "shard",
        "code",
        "channel",
        "values",
    ):
        assert no not in {argument for _, argument in takes}  # fmt: skip


def test_a_path_is_a_text(tmp_path):
    assert path_of("x.npy") == "x.npy"
    assert path_of(tmp_path / "x.npy") == str(tmp_path / "x.npy")
    assert path_of(FailOn.ERROR) is None
    assert path_of(3) is None
