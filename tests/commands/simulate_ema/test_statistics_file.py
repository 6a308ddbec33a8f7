"""Files of per-batch statistics, in every layout."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from bncli.commands.simulate_ema.statistics_file import is_statistics
from tests.commands.simulate_ema.samples import GENERATED, steps, table


@pytest.mark.parametrize("layout", ["csv", "long.npz", "wide.npz"])
def test_tables_of_statistics(run, save, folder, layout):
    rng = np.random.default_rng(0)
    mean, var = rng.normal(size=(6, 3)), rng.uniform(0.5, 2, (6, 3))
    count = np.array([8, 8, 8, 8, 8, 5])
    rows = [
        {"batch": b * 10, "channel": c, "mean": mean[b, c], "var": var[b, c], "count": count[b]}
        for b in range(6)
        for c in range(3)
    ]
    rng.shuffle(rows)
    name = f"table.{layout}"
    if layout == "csv":
        with (folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, ["count", "mean", "var", "channel", "batch"])
            writer.writeheader()
            writer.writerows(rows)
    elif layout == "long.npz":
        save(name, **{key: np.array([row[key] for row in rows]) for key in rows[0]})
    else:
        save(name, mean=mean, var=var, count=count)
    result = run("simulate-ema", name, "--buffer-dtype", "float64", "-f", "json")
    assert (result.code, result.stderr) == (0, "")
    running_mean, running_var = np.zeros(3), np.ones(3)
    for b in range(6):
        running_mean = 0.9 * running_mean + 0.1 * mean[b]
        running_var = 0.9 * running_var + 0.1 * var[b] * count[b] / (count[b] - 1)
        np.testing.assert_allclose(steps(result, "running_mean")[b], running_mean, rtol=1e-13)
        np.testing.assert_allclose(steps(result, "running_var")[b], running_var, rtol=1e-13)
    for row in table(result, "channels"):
        c = row["channel"]
        share = count / count.sum()
        pop = (share * mean[:, c]).sum()
        assert row["population_mean"] == pytest.approx(pop, rel=1e-12)
        total = (share * (var[:, c] + (mean[:, c] - pop) ** 2)).sum()
        assert row["population_var"] == pytest.approx(total, rel=1e-12)
    assert run("simulate-ema", name, "-f", "json").code == 0  # float32 buffers take them too


def test_the_table_that_bncli_writes_is_one_it_reads(run, folder):
    """The steps of one run, with a count, are the batches of another."""
    first = run(*GENERATED, "--buffer-dtype", "float64", "-f", "csv")
    rows = list(csv.DictReader(io.StringIO(first.stdout)))
    lines = ["batch,channel,mean,var,count"]
    lines += [
        f"{row['step']},{row['channel']},{row['batch_mean']},{row['batch_var']},24" for row in rows
    ]
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    flags = ("--momentum", 0.25, "--buffer-dtype", "float64", "-f", "json")
    again = run("simulate-ema", "t.csv", *flags)
    np.testing.assert_allclose(
        steps(again, "running_var").ravel(), [float(row["running_var"]) for row in rows], rtol=1e-13
    )


def test_a_table_of_statistics_is_told_by_its_header(folder):
    for text, known in (
        ("batch,channel,mean,var,count\n0,0,1,2,8\n", True),
        ("\ufeffCount;x\n1;2\n", False),
        ('"batch","channel","mean","var"\n0,0,1,2\n', True),  # and count is said to be missing
        ("mean,var\n1,2\n", False),
        ("left,right\n1,2\n", False),
        ("1,2\n3,4\n", False),
        ("", False),
    ):
        (folder / "t.csv").write_text(text, encoding="utf-8")
        assert is_statistics("t.csv") is known
    (folder / "t.txt").write_text("batch,channel,mean,var,count\n0,0,1,2,8\n")
    assert is_statistics("t.txt") is False


def test_a_csv_of_values_is_a_batch(run, save, folder):
    x = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    np.savetxt(folder / "x.csv", x, fmt="%.9g", delimiter=",", header="a,b,c", comments="")
    save("x.npy", x)
    for flags in ((), ("--batch-size", 4), ("--batch-size", 4, "--shuffle", "--epochs", 2)):
        typed, stored = (
            run("simulate-ema", name, *flags, "-f", "json").report for name in ("x.csv", "x.npy")
        )
        assert typed["tables"] == stored["tables"]
    text = str(x.reshape(3, 4, 3).tolist())
    typed = run("simulate-ema", "--values", text, "--batch-axis", 0, "-f", "json").report
    stored = run("simulate-ema", "x.npy", "--batch-size", 4, "-f", "json").report
    assert typed["tables"]["steps"] == stored["tables"]["steps"]
