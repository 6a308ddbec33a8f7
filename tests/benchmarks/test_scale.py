"""How it grows: up to 10,000 shards in one call, one shard of a call, and merging 1,000 parts."""

import os

import numpy as np

from bncli.loaders.statistics import write_statistics
from bncli.model.capture import Capture, WatchedLayer
from bncli.model.part import Part, PartInput
from tests.loaders.statistics.captures import TRAINING, sums_of

from .conftest import Row
from .processes import BNCLI, measured

NUMBERS = (10, 100, 1000, 10_000)
DIFFERENT = 50
"""Files of 1 MiB; the others are further names of these."""
CONSTANT = 1.2
"""How much a shard may take of what it takes among 1,000."""
MEMORY = 3.0
"""KB that a shard may take beyond those of 100: its name, and where its values are."""
PARTS, CHANNELS = 1000, 1000
MERGED = 6.0
"""Seconds that merging may take."""
MERGED_MEMORY = 260.0
"""And MB, of which the arrays of the parts are 190."""


def test_more_shards(tmp_path, rows):
    rng = np.random.default_rng(0)
    files = [tmp_path / f"{i}.npy" for i in range(DIFFERENT)]
    for file in files:
        np.save(file, rng.standard_normal((64, 64, 8, 8)).astype(np.float32))
    for number in NUMBERS:
        folder = tmp_path / str(number)
        folder.mkdir()
        for i in range(number):
            os.link(files[i % DIFFERENT], folder / f"{i:05}.npy")
    start, _ = measured(BNCLI, "compute", str(files[0]), "-q")
    for way in ("compute", "--shard --save-stats"):
        each, peaks = {}, {}
        for number in NUMBERS:
            arguments = ["compute", str(tmp_path / str(number) / "*.npy"), "-q"]
            if way != "compute":
                stats = str(tmp_path / f"{number}.npz")
                arguments += ["--shard", "0/1", "--save-stats", stats]
            seconds, peaks[number] = measured(BNCLI, *arguments)
            each[number] = max(seconds - start, 0.0) / number
            said = f"{1e3 * each[number]:.2f} ms a shard, {peaks[number]:.0f} MB"
            rows.append(Row(f"{number} shards of 1 MiB", way, "default", "-", said, None))
        growth, memory = each[10_000] / each[1000], 1e3 * (peaks[10_000] - peaks[100]) / 9900
        for case, ratio, most in (
            ("time a shard, of 10,000 to 1,000", growth, CONSTANT),
            ("KB a shard, of 10,000 beyond 100", memory, MEMORY),
        ):
            rows.append(Row(case, way, "default", f"{most:g}", f"{ratio:.2f}", ratio <= most))


def test_merging_many_parts(tmp_path, rows):
    rng = np.random.default_rng(0)
    for k in range(PARTS):
        seen = {TRAINING: sums_of([rng.standard_normal((8, CHANNELS))], CHANNELS)}
        inputs = tuple(PartInput(f"gone/{k + i * PARTS:05}.npy", 1 << 20, "0") for i in range(10))
        part = Part(k, PARTS, inputs, 10 * PARTS, 10 * PARTS << 20, "d")
        layer = WatchedLayer("x", 0, CHANNELS, seen=seen)
        write_statistics(tmp_path / f"{k:04}.npz", Capture((layer,), part=part))
    seconds, peak = measured(BNCLI, "compute", str(tmp_path / "*.npz"), "-q")
    said = f"{seconds:.1f} s, {peak:.0f} MB"
    case = f"merging {PARTS} parts of {CHANNELS} channels"
    most, good = f"{MERGED:g} s, {MERGED_MEMORY:g} MB", seconds <= MERGED and peak <= MERGED_MEMORY
    rows.append(Row(case, "-", "default", most, said, good))
