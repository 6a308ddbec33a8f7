"""What is said of many files as a whole."""

from __future__ import annotations

import pytest

from bncli.commands.compare_checkpoints.many_words import (
    happened,
    kind,
    made,
    nothing,
    states,
    unmatched,
    weights_said,
)
from bncli.model.changes import State
from bncli.model.many import (
    Counted,
    Jump,
    Kind,
    Made,
    Many,
    Origin,
    Ranks,
    Spoilt,
    Still,
    Stranger,
)

PATHS = ("run/e1.pt", "run/e2.pt", "run/e3.pt")


def many(what=Kind.SERIES, **more):
    return Many(what, PATHS, 4, **more)


def jump(path, back):
    return Jump(path, ("bn1",), "bn1", 40.0, 3.0, 9.0, back)


@pytest.mark.parametrize(
    ("made_of", "said"),
    [
        (Origin("parameters", Made.WEIGHTED, "", weights=(0.25, 0.75)), "25%, 75%"),
        (Origin("parameters", Made.WEIGHTED, "", weights=(1.0, -1.0, 1e-9)), "100%, -100%, 0%"),
        (Origin("parameters", Made.WEIGHTED, "", weights=(0.5, 0.5), unique=False), None),
        (Origin("parameters", Made.MEAN, "", weights=(0.5, 0.5)), None),
    ],
)
def test_weights(made_of, said):
    assert weights_said(made_of) == said


def test_groups_of_one_origin_are_told_together():
    mean = "the mean of these 3 files"
    origins = [
        Origin("parameters", Made.MEAN, mean),
        Origin("running_mean", Made.MEAN, mean),
        Origin("running_var", Made.FILE, "e1.pt's"),
        Origin("counters", Made.UNTOLD, "too few to tell"),
    ]
    assert made(origins) == (
        f"parameters and running_mean are {mean}; running_var is e1.pt's; counters: too few to tell"
    )


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (many(), "a series, in the order of their counters"),
        (many(reordered=True), "a series, sorted by their counters"),
        (many(counted=Counted.NONE), "no counters; a series in the order given"),
        (many(wanders=True), "(likely), or clients"),
        (many(Kind.RANKS), "equal parameters and counters"),
        (many(Kind.RANKS, counted=Counted.NONE), "no counters; equal parameters, as of ranks:"),
        (many(Kind.CLIENTS), "equal counters and other parameters"),
        (many(Kind.CLIENTS, counted=Counted.GROWING), "about equally far from each other"),
        (many(Kind.APART, counted=Counted.DIFFERENT), "neither a series nor ranks"),
        (many(Kind.APART, related=False), "some of these networks were trained apart"),
    ],
)
def test_what_files_are_taken_for(files, said):
    assert said in kind(files)


SPOILT = Spoilt(PATHS[1], State.RESET, "running_mean is 0 and running_var 1", ("bn1", "bn2"))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (many(), "no file stands out"),
        (many(jumps=(jump(PATHS[1], True),)), "the statistics of e2.pt jump and come back"),
        (many(jumps=(jump(PATHS[1], False),)), "the statistics of e2.pt jump and stay there"),
        (many(jumps=(jump(PATHS[0], None),)), "e1.pt is far from the files after it in bn1"),
        (many(stills=(Still(("bn1",), PATHS[0], None),)), "of bn1 stand still since e1.pt"),
        (many(new=PATHS[:1]), "e1.pt is a network before any training"),
        (many(strangers=(Stranger("run/x.pt", ("bn1",)),)), "x.pt was trained apart"),
        (
            many(ranks=Ranks(("bn1",), "bn1", PATHS[0], 1, 2)),
            "differ in 1 of 4 layers, most in bn1",
        ),
        (many(drift=(0.1, 0.2)), "moves by 0.1 std a file, the last by 0.2"),
        (many(related=False, runs=(PATHS[:2],)), "trained apart, e1.pt and e2.pt are of one run"),
    ],
)
def test_what_happened(files, said):
    assert said in happened(files)


def test_a_spoilt_file_is_said_and_counted():
    files = many(spoilt=(SPOILT,), jumps=(jump(PATHS[1], True),))
    assert happened(files).startswith("in e2.pt, ")
    assert states(files) == [["reset", 1], ["jump", 1]]


def test_what_some_files_lack():
    lacking = ((PATHS[1], ("bn5",)), (PATHS[2], ("bn5",)))
    assert unmatched(many(lacking=lacking)) == ("bn5 is missing in e2.pt and e3.pt",)
    assert unmatched(many()) == ()
    none = Many(Kind.APART, PATHS, 0, lacking=((PATHS[1], ("bn1", "bn2")),))
    assert nothing(none) == "none of the 2 layers of e1.pt is in e2.pt"
    assert nothing(Many(Kind.APART, PATHS, 0)) == "there is no BatchNorm layer in the first file"
