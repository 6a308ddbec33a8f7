"""The tensors of `bncli identify`, opened and handed on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bncli.sections.identification import cause_of_difference
from bncli.verify.identify.hypotheses import Hypothesis
from bncli.verify.identify.output import Identification
from bncli.verify.identify.said import Said
from bncli.verify.identify.search import Candidate


def test_several_inputs_are_one_batch(run, save):
    """An output, and an update, with the mean of the means of inputs of other sizes."""
    rng = np.random.default_rng(0)
    parts = [rng.normal(rng.normal(), 1, (n, 3, 4)) for n in (2, 9, 5)]
    names = [save(f"{i}.npy", part) for i, part in enumerate(parts)]
    whole = np.concatenate(parts)
    mean = np.mean([part.mean((0, 2)) for part in parts], axis=0)
    var = np.mean([part.var((0, 2)) for part in parts], axis=0)
    save("y.npy", (whole - mean[:, None]) / np.sqrt(var[:, None] + 1e-5))
    result = run("identify", *names, "y.npy", "-f", "json")
    first = result.report["tables"]["hypotheses"][0]
    assert (first["mode"], first["explains"]) == ("training", True)
    assert first["variant"] == "the means of the inputs' means and variances"
    assert result.report["facts"]["inputs"] == 3
    flags = []
    for side, values in (("before", (np.zeros(3), np.ones(3))),
                         ("after", (0.1 * mean, 0.9 + 0.1 * var))):  # fmt: skip
        for name, value in zip(("mean", "var"), values, strict=True):
            flags += [f"--running-{name}-{side}", save(f"{name}_{side}.npy", value)]
    result = run("identify", *names, *flags, "-f", "json")
    first = result.report["tables"]["hypotheses"][0]
    assert (first["momentum"], first["explains"]) == (0.1, True)
    assert first["variant"] == "the means of the inputs' means and variances"
    assert [item["code"] for item in result.report["findings"]] == ["BN904"]


def found(name, hypothesis, *, explains=True, confident=True, doubt=""):
    said = Said(f"{name} was computed {hypothesis.way}", doubt=doubt)
    candidate = Candidate(hypothesis, 0.0, 0, (0.0,), 0, explains=explains)
    return Identification(name, (candidate,), said, confident, expected=False, tried=9, channels=2)


PLAIN, OTHER = Hypothesis("eval", None, 1e-5), Hypothesis("eval", None, 1e-3)


def test_another_eps_is_the_cause_and_has_its_fix():
    assert cause_of_difference(found("a.npy", PLAIN), found("b.npy", OTHER)) == (
        (
            "Cause: b.npy was computed in eval mode with eps 1e-3, "
            "and a.npy in eval mode with eps 1e-5."
        ),
        "Set eps=1e-3 where a.npy is made.",
    )


def test_another_way_is_named_in_the_fix():
    mode = Hypothesis("training", 0, 1e-5)
    _, fix = cause_of_difference(found("a.npy", PLAIN), found("b.npy", mode))
    assert fix == "Compute a.npy in training mode with eps 1e-5 too, or change what is expected."


def test_what_is_in_doubt_is_only_likely():
    unsure = found("b.npy", OTHER, confident=False, doubt="eps 1e-4 fits as well")
    said, _ = cause_of_difference(found("a.npy", PLAIN), unsure)
    assert said.startswith("Likely cause: b.npy was computed in eval mode")
    assert said.endswith("b.npy: eps 1e-4 fits as well.")


def test_what_is_not_explained_has_no_fix():
    unknown = found("b.npy", OTHER, explains=False)
    said, fix = cause_of_difference(found("a.npy", PLAIN), unknown)
    assert (said, fix) == (
        (
            "a.npy was computed in eval mode with eps 1e-5. "
            "b.npy was computed in eval mode with eps 1e-3."
        ),
        "",
    )  # fmt: skip
    same = cause_of_difference(found("a.npy", PLAIN), found("b.npy", PLAIN))
    assert same == ("Both were computed in eval mode with eps 1e-5, so this is not the cause.", "")
    nothing = replace(unknown, hypotheses=())
    assert cause_of_difference(found("a.npy", PLAIN), nothing) == ("", "")


def test_a_range_of_eps_names_none_as_the_fix():
    """Half precision may hide that the two differ in eps."""
    broad = replace(found("a.npy", PLAIN, confident=False), eps_range=(0.0, 1e-3))
    for other in (found("b.npy", PLAIN), found("b.npy", OTHER)):
        cause, fix = cause_of_difference(broad, other)
        assert cause.startswith("Likely cause: b.npy was computed in eval mode with eps 1e-")
        assert "a.npy in eval mode with an eps between 0 and 1e-3." in cause
        assert fix == "Compare eps on both sides."
