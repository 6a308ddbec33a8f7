"""`bncli compute --shard`: parts of the inputs, whose report is that of the file they make."""

import shlex
from io import FileIO
from pathlib import Path

import numpy as np
import pytest

from tests.commands.samples import random, table


@pytest.fixture
def shards(save):
    """Seven inputs of one tensor, in files."""
    x = random(21, 3, 4, 5) + np.array([1, -50, 1e4], np.float32)[:, None, None]
    for i in range(7):
        save(f"s{i}.npy", x[3 * i : 3 * i + 3])
    return x


def test_the_parts_come_to_the_whole(run, shards):
    for k in range(3):
        run("compute", "s*.npy", "--shard", f"{k}/3", "--save-stats", f"p{k}.npz", "-q")
    merged = table(run("compute", "p2.npz", "p0.npz", "p1.npz", "-f", "json"))
    whole = table(run("compute", "s*.npy", "-f", "json"))
    for row, wanted in zip(merged, whole, strict=True):
        assert [row[key] for key in ("count", "min", "max")] == [
            wanted[key] for key in ("count", "min", "max")
        ]
        assert row["mean"] == pytest.approx(wanted["mean"], rel=1e-12)
        assert row["var"] == pytest.approx(wanted["var"], rel=1e-12)


def test_the_report_of_a_shard_is_that_of_its_part(run, shards):
    mine = run("compute", "s*.npy", "--shard", "1/3", "--save-stats", "p1.npz", "-f", "json")
    again = run("compute", "p1.npz", "--allow-missing-parts", "-f", "json")
    assert table(mine) == table(again)


def test_what_a_finished_part_holds_is_not_read_again(run, shards, save):
    call = ("compute", "s*.npy", "--shard", "0/3", "--save-stats", "p.npz")
    assert run(*call).code == 0
    twice = run(*call)
    assert (twice.code, "it exists already" in twice.stderr) == (2, True)
    assert "none was read again" in run(*call, "--resume").stdout
    save("s3.npy", np.zeros((3, 3, 4, 5), np.float32))
    changed = run(*call, "--resume")
    assert (changed.code, "s3.npy has changed" in changed.stderr) == (2, True)


def test_a_task_opens_its_own_inputs_alone(run, shards, monkeypatch):
    opened = set()

    class Recorded(FileIO):
        def __init__(self, file, *args):
            opened.add(str(file))
            super().__init__(file, *args)

    monkeypatch.setattr("bncli.files.reading.FileIO", Recorded)
    call = ("compute", "s*.npy", "--shard", "1/3", "--save-stats", "p.npz")
    assert run(*call).code == 0
    assert opened == {"s1.npy", "s4.npy"}
    assert run(*call, "--resume").code == 0
    assert opened == {"s1.npy", "s4.npy", "p.npz"}


def test_a_statistics_file_among_its_own_inputs_is_refused(run, shards):
    run("compute", "s0.npy", "--save-stats", "s1.npz", "-q")
    call = ("compute", "s0.npy", "s1.npz", "--save-stats", "p.npz")
    code, out, err = run(*call, "--shard", "1/2")
    assert (code, out) == (2, "")
    assert err == (
        "bncli: s1.npz is a statistics file; merge such files without --shard, --distributed and "
        "--resume.\n"
    )
    assert not Path("p.npz").exists()


def test_a_shard_without_inputs_has_nothing_to_do(run, shards):
    result = run("compute", "s*.npy", "--shard", "7/8", "--save-stats", "p.npz")
    assert (result.code, "there are only 7 inputs" in result.stdout) == (3, True)


# ---------------------------------------------------------------------------- as in one process


def drifting(rng):
    """Inputs whose second channel moves on from one to the next."""
    for i in range(12):
        x = rng.standard_normal((16, 3, 5, 5))
        x[:, 1] += 0.5 * i
        yield x


def with_an_infinity(rng):
    for i, x in enumerate(drifting(rng)):
        x[3, 0, 1, 2] = np.inf if i == 7 else 0
        yield x


INPUTS = {
    "healthy": lambda rng: (rng.standard_normal((16, 3, 5, 5)) for _ in range(12)),
    "drift": drifting,
    "an infinity": with_an_infinity,
    "one value in each": lambda rng: (np.full((16, 3, 2), float(i // 6)) for i in range(12)),
    "constant": lambda rng: (np.full((4, 3, 2), 0.1) for _ in range(5)),
    "other sizes": lambda rng: (
        rng.standard_normal((rng.integers(1, 30), 3, rng.integers(1, 50))) for _ in range(9)
    ),
    "channels last": lambda rng: (rng.standard_normal((6, 4, 3)) for _ in range(5)),
    "smooth images": lambda rng: (
        rng.standard_normal((4, 3, 1)) + 0.1 * rng.standard_normal((4, 3, 99)) for _ in range(8)
    ),
    "one": lambda rng: [rng.standard_normal((4, 3, 1))],
}


def alike(found, wanted):
    """Whether values of a report agree to 1e-9, and exactly where they are no real numbers."""
    if isinstance(wanted, float):
        return found == pytest.approx(wanted, rel=1e-9, abs=1e-12)
    if isinstance(wanted, (list, dict)):
        pairs = wanted.items() if isinstance(wanted, dict) else enumerate(wanted)
        return len(found) == len(wanted) and all(alike(found[key], each) for key, each in pairs)
    return found == wanted


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("way", ["parts", "one shard"])
def test_parts_and_one_process_say_the_same(run, save, kind, way):
    for i, x in enumerate(INPUTS[kind](np.random.default_rng(3))):
        save(f"s{i:02}.npy", x.astype(np.float32))
    flags = ("--channel-axis", "-1") if kind == "channels last" else ()
    whole = run("compute", "s*.npy", *flags, "-f", "json")
    if way == "parts":
        for k in range(3):
            run("compute", "s*.npy", *flags, "--shard", f"{k}/3", "--save-stats", f"p{k}.npz")
        found = run("compute", "p*.npz", "-f", "json")
    else:
        found = run("compute", "s*.npy", *flags, "--shard", "0/1", "-f", "json")
    assert found.code == whole.code
    assert alike(found.report["tables"], whole.report["tables"])
    findings = [each.report["findings"] for each in (found, whole)]
    for each in findings[1]:  # where the first one is, only the values tell
        if each["code"] == "BN001":
            each["evidence"]["first_nonfinite"] = [None]
            each["message"] = each["message"].partition(", the first")[0]
    assert alike(*findings)
    differ = {"drift": 1, "an infinity": 1, "one value in each": 1}.get(kind, 0)
    assert [each["severity"] for each in findings[0] if each["code"] == "BN010"] in (
        [["warning"]] if differ else [[], ["info"]]
    )


def test_parts_go_on_when_an_input_of_another_shard_was_repaired(run, shards, save, monkeypatch):
    """The others need not be made again; where they are, they learn what all inputs are."""
    repaired = np.load("s1.npy")
    save("s1.npy", repaired[:2])
    calls = [
        ("compute", "s*.npy", "--shard", f"{k}/3", "--save-stats", f"p{k}.npz", "--resume")
        for k in range(3)
    ]
    assert [run(*calls[k]).code for k in (0, 2)] == [0, 0]
    save("s1.npy", repaired)
    assert run(*calls[1]).code == 0
    before = run("compute", "p*.npz", "-f", "json")
    assert "an input had another size when some of the parts were made" in before.stdout
    with monkeypatch.context() as patch:
        patch.setattr("bncli.commands.compute.sums_first._read", None)
        for call in calls:
            result = run(*call)
            assert (result.code, "none was read again" in result.stdout) == (0, True)
    merged = table(run("compute", "p*.npz", "-f", "json"))
    assert merged == table(before)
    for k in range(3):
        run("compute", "s*.npy", "--shard", f"{k}/3", "--save-stats", f"fresh{k}.npz", "-q")
    assert merged == table(run("compute", "fresh*.npz", "-f", "json"))


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        ((), "shard 1/3 is missing"),
        (("--shard", "1/3", "--dtype", "float64"), "with --dtype float64, but"),
        (
            ("--shard", "1/3", "--per-batch"),
            "with --per-batch, but the 2 other parts were made without --per",
        ),
        (("--shard", "1/4"), "with --shard 1/4, but"),
        (("--shard", "1/3"), "its input s4.npy has changed"),
    ],
)
def test_the_call_that_an_error_prints_repairs_it(run, save, shards, spoilt, said):
    for k in (0, 2):
        run("compute", "s*.npy", "--shard", f"{k}/3", "--save-stats", f"p{k}.npz", "-q")
    if spoilt:
        run("compute", "s*.npy", *spoilt, "--save-stats", "p1.npz", "-q")
    save("s4.npy", np.load("s4.npy") + 1)
    refused = run("compute", "p*.npz")
    assert (refused.code, said in refused.stderr) == (2, True)
    before, call = refused.stderr.rstrip("\n").split(" with: bncli ")
    if spoilt:
        assert before.endswith("; remove this part and make shard 1/3")
        Path("p1.npz").unlink()
    assert run(*shlex.split(call)).code == 0
    assert table(run("compute", "p*.npz", "-f", "json"))[0]["count"] == 420


def test_an_input_counts_once(run, shards, save):
    run("compute", "s0.npy", "s1.npy", "--save-stats", "a.npz", "-q")
    run("compute", "s1.npy", "s2.npy", "--save-stats", "b.npz", "-q")
    run("compute", "s2.npy", "--save-stats", "c.npz", "-q")
    twice = run("compute", "a.npz", "b.npz")
    assert twice.code == 2
    assert "b.npz: it holds s1.npy, and so does a.npz; leave one of them out" in twice.stderr
    assert run("compute", "a.npz", "c.npz").code == 0


def test_batches_that_are_kept_in_order_are_not_added_to(run, shards):
    flags = ("--per-batch", "--resume", "--save-stats", "r.npz")
    assert run("compute", "s0.npy", "s2.npy", *flags).code == 0
    added = run("compute", "s*.npy", *flags)
    assert added.code == 2
    assert "it holds 2 of 7 inputs, and --per-batch keeps their order" in added.stderr
    assert run("compute", "s0.npy", "s2.npy", *flags).code == 0


def test_batches_are_in_the_order_of_simulate_ema(run, save):
    for i in range(12):
        save(f"n{i}.npy", random(4 + i, 2, seed=i) + i)
    run("compute", "n*.npy", "--per-batch", "--save-stats", "w.npz", "-q")
    for k in range(5):
        name = f"p{k}.npz"
        run("compute", "n*.npy", "--shard", f"{k}/5", "--per-batch", "--save-stats", name, "-q")
    parts = [f"p{k}.npz" for k in range(5)]
    run("compute", *parts, "--save-stats", "m.npz", "-q")
    direct, whole, merged = (
        table(run("simulate-ema", name, "-f", "json"), "steps")
        for name in ("n*.npy", "w.npz", "m.npz")
    )
    assert len(direct) == len(whole) == len(merged)
    for one, two, three in zip(direct, whole, merged, strict=True):
        assert two["running_mean"] == pytest.approx(three["running_mean"], rel=1e-12)
        assert one["running_mean"] == pytest.approx(two["running_mean"], rel=1e-5)  # in float32


def test_one_value_a_channel_is_too_few_for_the_whole_alone(run, save):
    save("a.npy", random(5, 2))
    save("b.npy", random(1, 2, seed=1))
    for k in range(2):
        made = run("compute", "a.npy", "b.npy", "--shard", f"{k}/2", "--save-stats", f"p{k}.npz")
        assert made.code == 0
    merged = run("compute", "p0.npz", "p1.npz", "-f", "json")
    whole = run("compute", "a.npy", "b.npy", "-f", "json")
    for row, wanted in zip(table(merged), table(whole), strict=True):
        assert row["var"] == pytest.approx(wanted["var"], rel=1e-12)
    assert run("compute", "b.npy", "--shard", "0/1").code == 2


def test_an_input_that_changes_while_it_is_read_makes_no_part(run, shards, save, monkeypatch):
    from bncli.commands.compute import saved

    joined = saved.capture_of

    def slowly(*args, **flags):
        save("s3.npy", np.zeros((3, 3, 4, 5), np.float32))
        return joined(*args, **flags)

    monkeypatch.setattr(saved, "capture_of", slowly)
    made = run("compute", "s*.npy", "--shard", "0/3", "--save-stats", "p.npz")
    assert made.code == 2
    assert "s3.npy: it was written to or replaced after bncli had read it" in made.stderr
    assert not Path("p.npz").exists()


def test_parts_go_on_when_inputs_are_added_behind(run, shards, save):
    call = ("compute", "s*.npy", "--save-stats")
    for k in range(3):
        run(*call, f"p{k}.npz", "--shard", f"{k}/3")
    save("s7.npy", random(3, 3, 4, 5, seed=7))
    assert run(*call, "p1.npz", "--shard", "1/3", "--resume").code == 0  # s7 is its own
    grown = run("compute", "p*.npz")
    assert (grown.code, "run every task again" in grown.stderr) == (2, True)
    assert [run(*call, f"p{k}.npz", "--shard", f"{k}/3", "--resume").code for k in (0, 2)] == [0, 0]
    merged = table(run("compute", "p*.npz", "-f", "json"))
    whole = table(run("compute", "s*.npy", "-f", "json"))
    assert [row["count"] for row in merged] == [row["count"] for row in whole]
    for row, wanted in zip(merged, whole, strict=True):
        assert row["mean"] == pytest.approx(wanted["mean"], rel=1e-12)


def test_a_part_that_is_cut_is_removed_to_be_made_anew(run, shards):
    call = ("compute", "s*.npy", "--shard", "0/3", "--save-stats", "p.npz", "--resume")
    assert run(*call).code == 0
    whole = Path("p.npz").read_bytes()
    Path("p.npz").write_bytes(whole[: len(whole) // 2])
    cut = run(*call)
    assert (cut.code, "remove it, and --resume makes it anew" in cut.stderr) == (2, True)
