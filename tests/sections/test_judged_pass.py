"""What a batch's samples show beside its values."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.arguments.flags import LayerFlags
from bncli.arguments.input import open_input
from bncli.arguments.layer import resolve_layer
from bncli.sections.judged_pass import judged_pass
from tests.commands.samples import codes, column, random


def smooth_images(rng, number):
    """Images whose pixels go together: by values, shuffled ones lie thousands of times apart."""
    x = np.cumsum(rng.normal(size=(number, 3, 12, 12)), 3)
    return (x + 9 * rng.normal(size=(number, 3, 1, 1))).astype(np.float32)


@pytest.mark.parametrize("inputs", [2, 3, 10])
def test_inputs_are_judged_by_their_samples(run, save, inputs):
    rng = np.random.default_rng(0)
    x = smooth_images(rng, 16 * inputs)

    def judged(x, *flags):
        paths = [save(f"{i}.npy", part) for i, part in enumerate(np.split(x, inputs))]
        return run("compute", *paths, "-f", "json", "--fail-on", "warning", *flags)

    shuffled = judged(x)
    assert shuffled.code == 0
    assert max(column(shuffled, "f_ratio", "spread")) > 30
    assert max(column(shuffled, "f_ratio_by_sample", "spread")) < 10
    assert [f["severity"] for f in shuffled.report["findings"]] == ["info"]
    assert shuffled.report["findings"][0]["evidence"]["by"] == "values"
    x[: len(x) // inputs, 2] += 100  # one input of another domain
    in_order = judged(x)
    (found,) = in_order.report["findings"]
    assert (in_order.code, found["code"], found["severity"]) == (1, "BN010", "warning")
    assert (found["evidence"]["channels"], found["evidence"]["by"]) == ([2], "samples")
    means = x.astype(np.float64).mean((2, 3))[:, 2].reshape(inputs, 16)
    between = 16 * means.mean(1).var(ddof=1)
    ratio = between / means.var(1, ddof=1).mean()
    assert found["evidence"]["f_ratio"] == pytest.approx([ratio])
    assert found["evidence"]["freedom"] == [inputs - 1, 15 * inputs]
    again = judged(x[rng.permutation(len(x))])
    assert again.code == 0


def test_inputs_of_one_sample_have_nothing_to_compare(run, save):
    rng = np.random.default_rng(0)
    paths = [save(f"{i}.npy", part) for i, part in enumerate(smooth_images(rng, 4)[:, np.newaxis])]
    result = run("compute", *paths, "-f", "json")
    assert {f["severity"] for f in result.report["findings"]} == {"info"}
    assert [row["f_ratio_by_sample"] for row in result.report["tables"]["spread"]] == [None] * 3


def test_channels_first_of_all_leave_a_note(run, save):
    """(C, H, W) has no axis of samples to go by."""
    rng = np.random.default_rng(0)
    paths = [save(f"{i}.npy", x) for i, x in enumerate(smooth_images(rng, 3))]
    result = run("compute", *paths, "--channel-axis", 0, "-f", "json")
    assert [(f["code"], f["severity"]) for f in result.report["findings"]] == [("BN010", "info")]


def test_sorted_shards_are_told_from_shuffled_ones(run, save):
    rng = np.random.default_rng(0)
    samples = np.concatenate([rng.normal(label, 1.0, (64, 4)) for label in (-3, 0, 3)])

    def shards(order):
        return [save(f"{i}.npy", part) for i, part in enumerate(np.split(samples[order], 3))]

    by_class = run("compute", *shards(np.arange(192)), "-f", "json")
    assert codes(by_class) == ["BN010"]
    assert np.all(column(by_class, "f_ratio", "spread") > 100)
    shuffled = run("compute", *shards(rng.permutation(192)), "-f", "json")
    assert codes(shuffled) == []
    assert np.all(column(shuffled, "f_ratio", "spread") < 10)
    np.testing.assert_allclose(column(by_class, "var"), column(shuffled, "var"), rtol=1e-12)


def test_stored_statistics_are_judged_by_the_batch_they_meet(run, save):
    """In evaluation alone, and where they were given."""
    save("x.npy", random(64, 3, 5, mean=1.0))
    save("mean.npy", np.full(3, 30.0))
    save("var.npy", np.full(3, 4.0))
    stored = ("--running-mean", "mean.npy", "--running-var", "var.npy")
    assert "BN013" in codes(run("compute", "x.npy", "--eval", *stored, "-f", "json"))
    for flags in (stored, ("--eval",), ("--eval", "--no-track-running-stats"), ()):
        assert "BN013" not in codes(run("compute", "x.npy", *flags, "-f", "json"))


def test_one_input_is_the_whole_and_several_are_merged(save):
    names = [save(f"{n}.npy", random(6, 3, 5, seed=n)) for n in range(2)]
    for specs in (names[:1], names):
        given = open_input(specs, 1, None)
        judged = judged_pass(given, resolve_layer(LayerFlags(), given), None)
        pooled = given.pooled().astype(np.float64)
        assert judged.done.stats.mean == pytest.approx(pooled.mean((0, 2)), rel=1e-12)
        assert judged.done.stats.var == pytest.approx(pooled.var((0, 2)), rel=1e-12)
        assert len(judged.parts) == len(specs)
        assert (judged.apart is None) is (len(specs) == 1)


@pytest.mark.parametrize("kind", ["shuffled", "sorted", "flags", "nan"])
def test_many_inputs_are_judged_as_if_each_were_kept(run, save, kind):
    """--per-input keeps them; beyond 64 inputs the last digits may differ, and nothing else."""
    rng = np.random.default_rng(0)
    for i in range(130):
        x = rng.normal(3.0 + 2.0 * (kind == "sorted") * (i % 3), 1.0, (4 + i % 3, 3, 2))
        if kind == "flags":  # of which each input has one value
            x[:, 1] = i % 2
        if kind == "nan" and i in {70, 90}:
            x[1, 2, 1] = np.nan
        save(f"x{i:03}.npy", x)
    save("mean.npy", np.full(3, 30.0))
    save("var.npy", np.full(3, 4.0))
    stored = ("--eval", "--running-mean", "mean.npy", "--running-var", "var.npy")
    for number in (64, 130):
        names = [f"x{i:03}.npy" for i in range(number)]
        for flags in ((), stored):
            kept, found = (
                run("compute", *names, *flags, *more, "-f", "json")
                for more in (["--per-input"], [])
            )
            assert (found.code, codes(found)) == (kept.code, codes(kept))
            kept.report["tables"].pop("inputs")
            if number == 64:
                assert found.report["tables"] == kept.report["tables"]
                continue
            for name in ("channels", "spread", "output"):
                for row, wanted in zip(
                    found.report["tables"][name], kept.report["tables"][name], strict=True
                ):
                    assert row.keys() == wanted.keys()
                    found_row, wanted_row = (
                        np.array(list(each.values()), np.float64) for each in (row, wanted)
                    )
                    np.testing.assert_allclose(found_row, wanted_row, rtol=1e-12, atol=1e-12)
                    if name == "channels":
                        for key in ("count", "nan", "inf", "min", "max"):
                            assert row[key] == wanted[key]
            for one, other in zip(found.report["findings"], kept.report["findings"], strict=True):
                assert one["message"] == other["message"]
                assert one["evidence"].get("channels") == other["evidence"].get("channels")
