"""What is known of the batches: each computed once, and rounded as the buffers hold it."""

from __future__ import annotations

import pytest

from tests.commands.simulate_ema.samples import GENERATED, table


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_table_of_statistics_is_rounded_as_the_buffers_hold_it(run, folder, dtype):
    """float16 modules keep a batch's statistics in float32, bfloat16 ones in bfloat16."""
    import torch

    kept = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    (folder / "t.csv").write_text("batch,channel,mean,var,count\n0,0,0.3,0.7,8\n1,0,0.1,0.9,8\n")
    rows = table(run("simulate-ema", "t.csv", "--buffer-dtype", dtype, "-f", "json"))
    for row, mean, var in zip(rows, (0.3, 0.1), (0.7, 0.9), strict=True):
        assert row["batch_mean"] == torch.tensor(mean, dtype=kept).item()
        assert row["batch_var"] * 8 == torch.tensor(var * 8, dtype=kept).item()


def test_the_statistics_are_computed_once(run, monkeypatch):
    from bncli.running_stats import collect

    seen = []
    original = collect.channel_moments

    def counted(*args, **kwargs):
        seen.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(collect, "channel_moments", counted)
    flags = ("--convention", "pytorch", "--convention", "keras3", "--epochs", 4)
    assert run(*GENERATED, *flags, "-q").code == 0
    assert len(seen) == 6
