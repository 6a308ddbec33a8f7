"""The set of configurations: what it covers, its ids, and other numbers of axes."""

from __future__ import annotations

from math import prod

import pytest

from bncli.testing import batchnorm_configurations
from bncli.testing.configurations import Configuration, needs, probe_of

ALL = batchnorm_configurations()


def test_there_are_enough_with_short_ids_of_their_own():
    names = [str(each) for each in ALL]
    assert 60 <= len(names) == len(set(names)) <= 80
    assert max(map(len, names)) <= 20
    assert not any(character in name for name in names for character in " []/:")
    assert all(each.about for each in ALL)
    assert batchnorm_configurations() == ALL


def test_everything_is_covered():
    assert {each.ndim for each in ALL} == {2, 3, 4, 5}
    assert {each.dtype for each in ALL} == {"float16", "bfloat16", "float32", "float64"}
    assert {each.layout for each in ALL} == {"contiguous", "channels_last", "strided", "reversed"}
    assert {each.momentum for each in ALL} >= {None, 0.0, 1.0, 0.1, 0.3}
    assert any(each.eps == 0 and each.modes == "e" for each in ALL)
    assert {each.affine for each in ALL} == {each.track_running_stats for each in ALL}
    assert {each.kind for each in ALL} == {"", "one value", "empty", "overflow", "nan", "inf"}
    assert any(each.mean >= 1e4 for each in ALL)
    assert any(each.std**2 < 2.0**-126 for each in ALL)
    assert {"t", "e", "tte", "ete", "ee", "tttt"} <= {each.modes for each in ALL}
    assert any(len(set(each.batches)) > 2 for each in ALL)
    assert all(len(each.batches) in (0, len(each.modes)) for each in ALL)


@pytest.mark.parametrize("ndim", [2, 3, 4, 5])
def test_other_axes_keep_the_values_of_a_channel(ndim):
    for configuration in ALL:
        moved = configuration.with_axes(ndim)
        assert (moved.ndim, moved.num_features) == (ndim, configuration.num_features)
        assert str(moved) == str(configuration)
        assert prod(moved.shape) == prod(configuration.shape)
        assert moved.with_axes(ndim) == moved


def test_a_probe_needs_one_thing_alone():
    given = next(each for each in ALL if each.name == "bfloat16-all")
    assert needs(given) == ("bfloat16 input", "bfloat16 parameters")
    assert needs(next(each for each in ALL if each.name == "no-affine")) == ("no weight and bias",)
    for each in ALL:
        for need in needs(each):
            probe = probe_of(each, need)
            assert need in needs(probe)
            assert (probe.ndim, probe.modes, probe.kind) == (each.ndim, "t", "")
            if probe.dtype == "float32":
                assert needs(probe) == (need,)


def test_what_fits_float32_is_not_needed():
    assert needs(Configuration("x", "", (4, 3))) == ()
