"""The flags that several commands share: each is one option, wherever it stands."""

from __future__ import annotations

import pytest

from bncli.arguments import options
from bncli.arguments.completion import complete_layers, complete_tensors
from bncli.cli.flags import flags_of
from bncli.commands import COMMANDS, command

LIVE = ("capture", "diagnose", "recalibrate")
"""Commands that run a model."""


def option_of(flag):
    (option,) = flag.annotation.__metadata__
    return option


@pytest.mark.parametrize(
    ("made", "metavar", "complete"),
    [
        (options.tensor_option, "FILE[::NAME]", complete_tensors),
        (options.layer_option, "CKPT::LAYER", complete_layers),
    ],
)
def test_what_is_in_a_file_is_named_and_completed_alike(made, metavar, complete):
    option = made("A sentence.", "0", panel="Panel")
    assert (option.metavar, option.help, option.autocompletion) == (
        metavar,
        "A sentence.",
        complete,
    )
    assert (option.show_default, option.rich_help_panel) == ("0", "Panel")
    assert made("A sentence.").show_default is False
    assert made("A sentence.").rich_help_panel == options.LAYER


def test_an_option_has_its_help_panel_default_and_bounds():
    option = options.option("A sentence.", "Panel", "--a", "-b", metavar="N", least=1, most=3)
    assert (option.default, option.param_decls) == ("--a", ("-b",))
    assert (option.help, option.rich_help_panel, option.metavar) == ("A sentence.", "Panel", "N")
    assert (option.show_default, option.min, option.max) == (True, 1, 3)
    assert options.option("A sentence.", "Panel", default="none").show_default == "none"


@pytest.mark.parametrize("complete", [complete_tensors, complete_layers])
def test_an_argument_shows_no_default_and_completes(complete):
    made = options.argument("INPUT", "A sentence.", complete)
    assert (made.metavar, made.help, made.show_default) == ("INPUT", "A sentence.", False)
    assert made.autocompletion is complete
    assert options.argument("INPUT", "A sentence.").autocompletion is complete_tensors


def test_a_name_of_its_own_is_what_is_typed():
    named = options.tensor_option("A sentence.", name="--input")
    assert (named.default, named.param_decls) == ("--input", ())
    assert options.tensor_option("A sentence.").param_decls in ((), None)


@pytest.mark.parametrize("name", ["threads", "dtype", "weight", "against", "rtol", "seed"])
def test_a_flag_of_several_commands_is_one(name):
    """But for what its help shows as the default, and who has a sentence of their own."""
    own = {("simulate_ema", "seed"), ("diff", "against"), ("diff", "rtol")}
    own |= {(each, flag) for each in LIVE for flag in ("seed", "dtype")}
    found = [
        option_of(flag)
        for each in COMMANDS
        for flag in flags_of(command(each))
        if flag.name == name and (each, name) not in own
    ]
    assert len(found) > 1
    assert all(option is found[0] for option in found)


def test_commands_that_run_a_model_take_it_alike():
    """But for the checkpoint that is copied, and the metric that decides."""
    first, *others = (
        {flag.name: option_of(flag) for flag in flags_of(command(each))} for each in LIVE
    )
    for each, options_of in zip(LIVE[1:], others, strict=True):
        shared = first.keys() & options_of.keys()
        assert shared >= {"checkpoint", "arg", "frozen", "device", "seed", "data", "batches"}
        own = {"checkpoint", "metric", "model"} if each == "recalibrate" else set()
        assert all(first[name] is options_of[name] for name in shared - own)


def test_threads_have_a_bound_that_libraries_bear(run, save):
    save("x.npy", [[1.0, 2.0], [3.0, 5.0]])
    assert run("compute", "x.npy", "--threads", options.MOST_THREADS, "-q").code == 0
    assert run("compute", "x.npy", "--threads", options.MOST_THREADS + 1, "-q").code == 2
