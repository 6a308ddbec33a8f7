"""Version 1 of places: what was written by it is known again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncli.gate.former_places import common_prefix, former_fingerprint, place, unwrapped
from tests.findings import finding, of_layers, report

LAYERS = ("stem.bn", "layer1.0.bn1", "layer1.0.bn2", "head.1")


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("bn1", "bn1"),
        ("module.bn1", "bn1"),
        ("_orig_mod.module.bn1", "bn1"),
        ("module._orig_mod.layer1._checkpoint_wrapped_module.0.bn1", "layer1.0.bn1"),
        ("module", "module"),  # a layer that is called so
        ("modules.bn1", "modules.bn1"),
        ("state_dict.module.bn1", "state_dict.bn1"),
        ("module/block/bn1", "block.bn1"),
        ("", ""),
    ],
)
def test_wrappers_are_left_out(name, bare):
    assert unwrapped(name) == bare


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (LAYERS, ""),
        (tuple(f"state_dict.module.{name}" for name in LAYERS), "state_dict"),
        (tuple(f"model.backbone.{name}" for name in LAYERS), "model.backbone"),
        (("layer1.0.bn1", "layer1.0.bn2"), "layer1.0"),
        (("a.bn", "a.bn.bn"), "a"),
        (("bn", "bn.bn"), ""),
        (("a.b.bn",), ""),  # of one name, nobody can tell
        ((), ""),
    ],
)
def test_common_prefix(names, prefix):
    assert common_prefix(names) == prefix


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("channel 3", "channel 4"),
        ("channel 3", "channels 0, 1, 2 and 61 more"),
        ("channels 0 and 7", "channels 0, 1, 2 and 3"),
        ("batch 3", "batch 17"),
        ("layer1.bn channel 3", "layer1.bn channels 3 and 4"),
    ],
)
def test_numbers_that_training_changes_are_no_part_of_a_place(one, other):
    given = report(finding(subject=one), finding(subject=other))
    first, second = (place(item, given) for item in given.findings)
    assert first == second


@pytest.mark.parametrize(("one", "other"), [("layer1.bn", "layer2.bn"), ("bn.1", "bn.2")])
def test_numbers_in_a_name_are(one, other):
    given = report(finding(subject=one), finding(subject=other))
    first, second = (place(item, given) for item in given.findings)
    assert first != second


prefixes = st.sampled_from(["", "module.", "_orig_mod.module.", "model.", "state_dict.module.net."])


@given(prefixes, prefixes, st.permutations(LAYERS), st.sampled_from(LAYERS), st.floats())
def test_a_fingerprint_survives(one, other, order, layer, number):
    """Another prefix, another order, other numbers; and another rule or layer is told apart."""
    before = of_layers(*(one + name for name in LAYERS), faulty=[one + layer])
    after = of_layers(
        *(other + name for name in order), faulty=[other + layer], message=f"it is {number}."
    )

    def printed(given):
        return [former_fingerprint(item, given) for item in given.findings]

    assert printed(before) == printed(after)
    assert len(printed(before)[0]) == 16
    every = of_layers(*LAYERS, faulty=LAYERS), of_layers(*LAYERS, faulty=LAYERS, code="BN002")
    assert len({mark for given in every for mark in printed(given)}) == 2 * len(LAYERS)
