"""Statistics files of the same layers, merged: any order, any split, and what is no part."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from bncli.errors import FileError, UsageError
from bncli.files.reading import reading
from bncli.loaders.statistics import read_statistics, write_statistics
from bncli.loaders.statistics.merging import merged
from bncli.model import BatchNormModule
from bncli.model.capture import Propagation

from .captures import EVAL, RENEWED, TRAINING, model_capture, odd_capture, unlike


def batches(number=7):
    rng = np.random.default_rng(3)
    return [
        rng.standard_normal((int(rng.integers(1, 6)), 3, 2, 4)) * 3 + 100 for _ in range(number)
    ]


def written(folder, *captures):
    paths = [folder / f"{i}.npz" for i in range(len(captures))]
    for path, capture in zip(paths, captures, strict=True):
        write_statistics(path, capture)
    return paths


def test_any_order_gives_the_same_bits(tmp_path):
    every = batches()
    parts = [every[:1], every[1:4], every[4:6], every[6:]]
    captures = [
        model_capture(part, shard=(k, 4), source={"data": [f"{k}.pt"], "seed": 0})
        for k, part in enumerate(parts)
    ]
    paths = written(tmp_path, *captures)
    first = read_statistics(paths)
    for order in itertools.permutations(paths):
        assert unlike(first, read_statistics(order)) is None
    assert first.source == {"data": [[f"{k}.pt"] for k in range(4)], "seed": 0}
    assert first.shard == (0, 1)


@pytest.mark.parametrize("cuts", [(1,), (3, 4), (1, 2, 3, 4, 5, 6)])
def test_any_split_gives_the_whole(cuts):
    every = batches()
    whole = model_capture(every)
    parts = [every[a:b] for a, b in itertools.pairwise((0, *cuts, len(every)))]
    found = merged([model_capture(part) for part in parts])
    for layer, expected in zip(found.layers, whole.layers, strict=True):
        for propagation, sums in expected.seen.items():
            got = layer.seen[propagation]
            for name in ("values", "samples", "batches", "batches_with_var"):
                assert getattr(got, name) == getattr(sums, name)
            for name in ("min", "max", "at_min", "at_max", "at_zero", "nan", "posinf", "neginf"):
                np.testing.assert_array_equal(getattr(got, name), getattr(sums, name))
            for name in ("mean", "var", "unbiased_var", "mean_of_batches", "sample_squares"):
                np.testing.assert_allclose(getattr(got, name), getattr(sums, name), rtol=1e-12)
    for propagation in (EVAL, RENEWED):
        assert found.gap(propagation) == pytest.approx(whole.gap(propagation), rel=1e-12)
    assert found.outputs[0].count == whole.outputs[0].count
    np.testing.assert_allclose(found.outputs[0].mean, whole.outputs[0].mean, rtol=1e-12)
    table = found.per_batch["stem.bn", TRAINING]
    expected = whole.per_batch["stem.bn", TRAINING]
    rows, wanted = (np.argsort(each["mean"][:, 0]) for each in (table, expected))
    np.testing.assert_array_equal(table["mean"][rows], expected["mean"][wanted])


def test_flags_of_any_part_are_those_of_the_whole():
    one, other = (model_capture([x]) for x in batches(2))
    layers = list(other.layers)
    layers[1] = replace(layers[1], in_training=True, calls=3)
    other = replace(
        other,
        layers=tuple(layers),
        rounds=5,
        settled=False,
        weights_moved=True,
        refused_training="one value",
        dropout=("b", "a"),
    )
    for captures in ((one, other), (other, one)):
        whole = merged(captures)
        assert (whole.layers[1].in_training, whole.layers[1].calls) == (True, 3)
        assert (whole.rounds, whole.settled, whole.weights_moved) == (5, False, True)
        assert (whole.refused_training, whole.dropout) == ("one value", ("a", "b"))


def test_what_only_some_parts_have():
    one, other = (model_capture([x]) for x in batches(2))
    without = replace(other.layers[1], seen={EVAL: other.layers[1].seen[EVAL]})
    other = replace(other, layers=(other.layers[0], without, other.layers[2]), per_batch={})
    other = replace(other, outputs=(replace(other.outputs[0], apart={EVAL: 1.0}),))
    whole = merged([one, other])
    assert whole.layers[1].seen[TRAINING].batches == 1
    assert whole.layers[1].seen[EVAL].batches == 2
    assert set(whole.outputs[0].apart) == {Propagation.EVAL}
    assert whole.per_batch == {}
    assert merged([one, replace(other, outputs=())]).outputs == ()


def test_one_file_is_read_as_it_is(tmp_path):
    capture = odd_capture()
    with reading(allow_missing_parts=True):
        assert unlike(read_statistics(written(tmp_path, capture)), capture) is None
    with pytest.raises(UsageError):
        read_statistics([])


def with_layer(capture, number=1, **given):
    layers = list(capture.layers)
    layers[number] = replace(layers[number], **given)
    return replace(capture, layers=tuple(layers))


def with_state(capture, **given):
    return with_layer(capture, state=replace(capture.layers[1].state, **given))


ONE = model_capture(batches(1))
OTHERS = {
    "a layer more": (
        replace(ONE, layers=(*ONE.layers, replace(ONE.layers[2], name="more.bn", order=3))),
        r"its layers are not those of .*0\.npz, or run in another order \(more\.bn\)",
    ),
    "another order": (
        replace(ONE, layers=(ONE.layers[0], *ONE.layers[:0:-1])),
        r"its layers are not those of .*0\.npz, or run in another order;",
    ),
    "another place": (
        with_layer(ONE, order=5),
        r"the place in the model of 'stem\.bn' is 5, but 1 in .*0\.npz",
    ),
    "another dtype": (
        replace(with_state(ONE, dtype="bfloat16"), fingerprint={"weights": "ffffffff"}),
        r"'stem\.bn' is bfloat16 in it, but float32 in .*0\.npz; only files of one model",
    ),
    "other weights": (
        replace(ONE, fingerprint={"weights": "ffffffff"}),
        r"the weights of its model differ from those in .*0\.npz",
    ),
    "other statistics": (
        with_state(ONE, running_mean=np.zeros(3, np.float32)),
        r"the running_mean of 'stem\.bn' differs from that in .*0\.npz",
    ),
    "no statistics": (
        with_state(ONE, running_var=None),
        r"the running_var of 'stem\.bn' differs",
    ),
    "another eps": (
        with_state(ONE, module=BatchNormModule("BatchNorm2d", 1e-3, 0.1)),
        r"the eps of 'stem\.bn' differs",
    ),
    "no state": (with_layer(ONE, state=None), r"the state of 'stem\.bn' differs"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_files_of_other_models_are_refused(name, tmp_path):
    other, said = OTHERS[name]
    paths = written(tmp_path, ONE, other)
    with pytest.raises(FileError, match=said) as caught:
        read_statistics(paths)
    assert str(caught.value).startswith(str(paths[1]))
    assert "\n" not in str(caught.value)


def test_a_layer_of_other_channels_is_refused(tmp_path):
    first, second = odd_capture(), odd_capture()
    second = with_layer(second, 3, num_features=3, state=None)
    second = replace(second, part=replace(second.part, k=3))
    paths = written(tmp_path, first, second)
    said = r"the number of channels of .* is 3, but 2 in"
    with reading(allow_missing_parts=True), pytest.raises(FileError, match=said):
        read_statistics(paths)


def test_a_shard_counts_once(tmp_path):
    captures = [
        model_capture([x], shard=(k, 3)) for k, x in zip((0, 2, 0), batches(3), strict=True)
    ]
    paths = written(tmp_path, *captures)
    with pytest.raises(FileError, match=r"it is shard 0/3, and so is .*0\.npz"):
        read_statistics(paths)
    with pytest.raises(FileError, match=r"shard 1/3 is missing"):
        read_statistics(paths[:2])
    with reading(allow_missing_parts=True) as call:
        read_statistics(paths[:2])
    assert [each.shards for each in call.missing] == [(1,)]


def test_parts_of_other_dtypes_are_not_merged(tmp_path):
    captures = [
        model_capture(
            [np.ones((4, 3, 2, 2))], shard=(k, 2), source={"dtype": f"float{32 * (k + 1)}"}
        )
        for k in range(2)
    ]
    with pytest.raises(FileError, match=r"its inputs are of float64, but those of .* float32;"):
        read_statistics(written(tmp_path, *captures))
