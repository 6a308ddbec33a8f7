"""What a target's counters are of the others'."""

from __future__ import annotations

import pytest
import torch

from bncli.changes.many.common import Common
from bncli.changes.many.counters import counter_of, counters_of
from bncli.model.many import Made, Origin
from bncli.state_dict import batch_norm_layers
from tests.changes.many.networks import opened


def state(counters, dtype=torch.int64):
    """Layers that have only a counter of their own."""
    return {
        f"bn{number}.{leaf}": value
        for number, counter in enumerate(counters)
        for leaf, value in {
            "weight": torch.ones(3),
            "bias": torch.zeros(3),
            "running_mean": torch.zeros(3),
            "running_var": torch.ones(3),
            **(
                {}
                if counter is None
                else {"num_batches_tracked": torch.tensor(counter, dtype=dtype)}
            ),
        }.items()
    }


def counted(files, beside=None):
    """Where the counters of the last file come from."""
    names = [file.path.name for file in files[:-1]]
    return counters_of(Common.of(files), names, beside)


FILES = ((10, 40), (20, 30), (30, 35))


@pytest.mark.parametrize(
    ("target", "dtype", "made", "what"),
    [
        ((60, 105), torch.int64, Made.SUM, "their sum"),
        ((20, 35), torch.float32, Made.MEAN, "their mean"),
        ((20, 35), torch.int64, Made.MEAN, "their mean"),
        ((20, 30), torch.int64, Made.FILE, "those of 1.pt"),
        ((30, 40), torch.int64, Made.LARGEST, "the largest of each layer"),
        ((10, 30), torch.int64, Made.SMALLEST, "the smallest of each layer"),
        ((0, 0), torch.int64, Made.NONE, "0"),
        ((1, 7), torch.int64, Made.NONE, "1 to 7, none of these, their sum or their mean"),
        ((20, 36), torch.int64, Made.NONE, "20 to 36, none of these, their sum or their mean"),
        ((None, None), torch.int64, Made.MISSING, "missing in the target"),
    ],
)
def test_counters(tmp_path, target, dtype, made, what):
    files = opened(tmp_path, *(state(counters) for counters in FILES), state(target, dtype))
    found = counted(files)
    assert (found.made, found.what) == (made, what)
    assert (found.off != ()) == (made is Made.NONE)


@pytest.mark.parametrize(("target", "made"), [(5, Made.SAME), (15, Made.SUM), (6, Made.NONE)])
def test_counters_that_are_equal_in_all_files(tmp_path, target, made):
    found = counted(opened(tmp_path, *[state((5,))] * 3, state((target,))))
    assert found.made is made


def test_a_mean_that_is_no_whole_number(tmp_path):
    """Averages keep the fraction, or lose it where the counter stays whole."""
    for target, dtype in ((35 / 3, torch.float32), (11, torch.int64), (12, torch.int64)):
        files = [state((counter,)) for counter in (10, 20, 5)]
        found = counted(opened(tmp_path, *files, state((target,), dtype)))
        assert found.made is Made.MEAN


def test_the_largest_file_is_named(tmp_path):
    files = [state((counter, counter)) for counter in (10, 20, 30)]
    found = counted(opened(tmp_path, *files, state((30, 30))))
    assert found.what == "those of 2.pt, the largest"


def test_files_without_counters(tmp_path):
    assert counted(opened(tmp_path, *[state((None,))] * 3)) is None


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (torch.tensor(7), 7),
        (torch.tensor([7]), 7),
        (torch.tensor(7.5), 7.5),
        (torch.tensor(torch.nan), None),
        (torch.tensor([7, 8]), None),
        (torch.tensor(7j), None),
    ],
)
def test_what_counts_as_a_counter(tmp_path, value, count):
    (file,) = opened(tmp_path, state((1,)) | {"bn0.num_batches_tracked": value})
    (layer,) = batch_norm_layers(file)
    assert counter_of(layer) == count


@pytest.mark.parametrize(
    ("target", "made", "what"),
    [
        (30, Made.SUBSET, "the mean of the same 3 files"),
        (90, Made.SUM, "the sum of the same 3 files"),
        (25, Made.MEAN, "their mean"),
        (40, Made.FILE, "those of 3.pt, the largest"),
    ],
)
def test_the_files_that_the_statistics_are_of_come_first(tmp_path, target, made, what):
    """Of counters that grow evenly, the mean of some is one of them, or the mean of all."""
    files = opened(tmp_path, *(state((count,)) for count in (10, 20, 30, 40)), state((target,)))
    beside = Origin("statistics", Made.SUBSET, "", weights=(0, 1 / 3, 1 / 3, 1 / 3))
    found = counted(files, beside)
    assert (found.made, found.what) == (made, what)


def test_the_file_that_the_statistics_are_of_comes_first(tmp_path):
    files = opened(tmp_path, *(state((count,)) for count in (10, 20, 30)), state((20,)))
    assert counted(files).made is Made.MEAN
    beside = Origin("statistics", Made.FILE, "", weights=(0, 1, 0))
    assert (counted(files, beside).made, counted(files, beside).what) == (
        Made.FILE,
        "those of 1.pt",
    )


def test_layers_without_counters_are_left_out(tmp_path):
    files = [state((None, 10, 10)), state((None, 20, 20)), state((None, 15, 99))]
    found = counted(opened(tmp_path, *files))
    assert (found.made, found.off, found.values, found.total) == (Made.NONE, ("bn2",), 2, 3)
