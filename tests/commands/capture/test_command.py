"""`bncli capture`: what is reported and saved, and that nothing else happens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bncli.loaders.statistics import read_statistics
from bncli.model.capture import Propagation
from tests.commands.capture.conftest import SMALL
from tests.commands.samples import codes, finding, table
from tests.live.small import by_hand, gap_by_hand

TRAINING, EVAL = Propagation.TRAINING, Propagation.EVAL


@pytest.mark.parametrize(
    ("form", "suffix"), [("table", ".txt"), ("json", ".json"), ("csv", ".csv"), ("markdown", ".md")]
)
def test_golden(run, exact, golden, form, suffix):
    result = run("capture", *exact, "-f", form)
    assert (result.code, result.stderr) == (0, "")
    golden(f"capture{suffix}", result.stdout)
    if form == "json":
        whole = np.concatenate([np.load("x0.npy"), np.load("x1.npy")]).astype(float)
        (rows, head) = table(result, "layers")
        assert rows["mean_min"] == whole.mean((0, 2)).min()
        assert head["var_max"] == pytest.approx(16 * whole.var((0, 2)).max(), rel=1e-12)
        spread = (whole - whole.mean((0, 2), keepdims=True)).std()
        assert result.report["facts"]["gap"] == pytest.approx(1 / spread, rel=1e-12)


# ---------------------------------------------------------------------------- the numbers


def seen_by(net, name, tensors, *, training):
    """What a layer of a net takes in, channel by channel, while each layer is in this mode."""
    seen = []
    layer = net.get_submodule(name)
    handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].double()))
    by_hand(net, tensors, training=training)  # a copy, whose hooks are these too
    handle.remove()
    return torch.cat(seen).transpose(0, 1).flatten(1)


def test_the_layers_are_those_that_a_hook_sees(run, small):
    net, tensors = small
    result = run("capture", *SMALL, "-f", "json")
    assert (result.code, result.stderr) == (0, "")
    rows = table(result, "layers")
    assert [(row["name"], row["order"]) for row in rows] == [("bn1", 1), ("bn2", 2), ("bn3", 3)]
    for row in rows:
        values = seen_by(net, row["name"], tensors, training=True)
        assert (row["channels"], row["values"]) == tuple(values.shape)
        assert (row["batches"], row["samples"], row["calls"]) == (4, 32, 1)
        mean, var = values.mean(1), values.var(1, correction=0)
        wanted = {"mean_min": mean.min(), "mean_max": mean.max(), "var_min": var.min()}
        for key, value in wanted.items():
            assert row[key] == pytest.approx(float(value), rel=1e-5, abs=1e-6), key
        layer = net.get_submodule(row["name"])
        assert row["running_var_max"] == float(layer.running_var.max())
    facts = result.report["facts"]
    assert facts["layers"] == 3
    assert facts["batches"] == 4
    assert facts["values"] == sum(row["channels"] * row["values"] for row in rows)
    assert facts["modes"] == ["training", "eval"]
    assert facts["gap"] == pytest.approx(gap_by_hand(net, tensors), rel=1e-5)
    assert facts["ratio"] == pytest.approx(facts["gap"] / facts["gap_floor"])
    assert facts["saved_stats"] is None


def test_the_input_has_a_table_by_channel(run, small):
    _, tensors = small
    rows = table(run("capture", *SMALL, "-f", "json"), "input")
    values = torch.cat(tensors).double().transpose(0, 1).flatten(1)
    assert [row["channel"] for row in rows] == [0, 1, 2]
    assert [row["mean"] for row in rows] == pytest.approx(values.mean(1).tolist(), rel=1e-12)
    assert [row["max"] for row in rows] == values.max(1).values.tolist()
    assert [row["nan"] for row in rows] == [0, 0, 0]


# ---------------------------------------------------------------------------- the file


def test_the_file_has_what_was_seen_and_where_it_is_from(run, small):
    net, tensors = small
    flags = ("--save-stats=stats.npz", "--seed=3", "--frozen=bn3")
    result = run("capture", *SMALL, *flags, "-f", "json")
    assert result.code == 0
    assert result.report["facts"]["saved_stats"] == "stats.npz"
    read = read_statistics(["stats.npz"])
    assert [layer.name for layer in read.layers] == ["input", "bn1", "bn2", "bn3"]
    assert [layer.frozen for layer in read.norms] == [False, False, True]
    for layer in read.norms[:2]:
        assert {TRAINING, EVAL, Propagation.RENEWED} == set(layer.seen)
        for mode in (TRAINING, EVAL):
            values = seen_by(net, layer.name, tensors, training=mode is TRAINING)
            if mode is EVAL or layer.name == "bn1":  # before any batch normalises
                assert layer.seen[mode].mean == pytest.approx(values.mean(1).numpy(), abs=1e-5)
    source = read.source
    assert source["model"] == "net.py:Net"
    assert source["checkpoint"]["path"] == "net.pth"
    assert source["data"] == ["x*.npy"]
    assert source["seed"] == 3
    assert source["frozen"] == ["bn3"]
    assert source["torch"] == str(torch.__version__)
    assert source["threads"] == torch.get_num_threads()
    assert {"bncli", "numpy", "python", "cpu_capability", "device"} <= set(source)
    assert set(read.fingerprint) == {"weights", "running_statistics", "checkpoint"}
    assert not read.weights_moved
    assert read.gap(EVAL) == result.report["facts"]["gap"]
    assert read.gap_floor == result.report["facts"]["gap_floor"]


def test_two_runs_write_the_same_bytes(run, small):
    for name in ("a.npz", "b.npz"):
        assert run("capture", *SMALL, "-q", "--save-stats", name).code == 0
    assert Path("a.npz").read_bytes() == Path("b.npz").read_bytes()


def test_the_verdict_says_where_it_is_and_what_reads_it(run, small):
    result = run("capture", *SMALL, "--save-stats=stats.npz")
    size = Path("stats.npz").stat().st_size
    last = result.stdout.splitlines()[-1]
    assert last == f"saved to stats.npz ({size / 1000:.0f} kB); bncli diagnose stats.npz judges it"
    told = run("diagnose", "stats.npz", "-f", "json").report
    assert told["facts"]["layers"] == 3
    last = run("capture", *SMALL).stdout.splitlines()[-1]
    assert last == "3 layers captured; --save-stats FILE.npz keeps them"


def test_every_batch_is_kept_where_that_is_asked_for(run, small):
    net, tensors = small
    assert run("capture", *SMALL, "-q", "--save-stats=plain.npz").code == 0
    assert run("capture", *SMALL, "-q", "--save-stats=each.npz", "--per-batch").code == 0
    assert read_statistics(["plain.npz"]).per_batch == {}
    each = read_statistics(["each.npz"]).per_batch["bn1", TRAINING]
    wanted = [seen_by(net, "bn1", [x], training=True).mean(1).tolist() for x in tensors]
    np.testing.assert_allclose(each["mean"], wanted, atol=1e-6)
    assert each["count"].tolist() == [8 * 64] * 4


# ---------------------------------------------------------------------------- refused

REFUSED = [
    (("--save-stats=stats.pt",), "--save-stats stats.pt: a statistics file is an .npz"),
    (("--save-stats=no/s.npz",), "no/s.npz: cannot be written: the folder 'no' does not exist"),
    (("--save-stats=folder.npz",), "folder.npz: cannot be written: it is a folder"),
    (("--per-batch",), "--per-batch is for a statistics file: add --save-stats FILE.npz"),
]


@pytest.mark.parametrize(("flags", "sentence"), REFUSED)
def test_what_cannot_be_written_is_refused_before_anything_runs(run, code, flags, sentence):
    Path("folder.npz").mkdir()
    np.save("x.npy", np.ones((4, 2), np.float32))
    code("bad.py", "raise SystemExit('this ran')")
    result = run("capture", "bad.py:net", "--data=x.npy", *flags)
    assert (result.code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"bncli: {sentence}")
    assert result.stderr.count("\n") == 1


def test_the_file_is_written_over_none_that_was_read(run, small):
    net, tensors = small
    np.savez("data.npz", tensors[0].numpy())
    np.savez("net.npz", **{key: value.numpy() for key, value in net.state_dict().items()})
    (Path() / "link.npz").symlink_to("data.npz")
    for target in ("data.npz", "./data.npz", "net.npz", "link.npz"):
        before = Path(target).read_bytes()
        result = run(
            "capture", "net.py:Net", "--checkpoint=net.npz", "--data=data.npz",
            "--save-stats", target,
        )  # fmt: skip
        assert (result.code, result.stdout) == (2, "")
        assert f"--save-stats {target}: this would overwrite an input" in result.stderr
        assert Path(target).read_bytes() == before


def test_an_older_file_is_replaced(run, small):
    Path("stats.npz").write_bytes(b"older")
    assert run("capture", *SMALL, "-q", "--save-stats=stats.npz").code == 0
    assert len(read_statistics(["stats.npz"]).norms) == 3


STOPPED = """
    import os, signal
    from tests.live.small import Net

    class Stopped(Net):
        def forward(self, x):
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls == 3:
                {stop}
            return super().forward(x)
"""


@pytest.mark.parametrize("stop", ["raise KeyboardInterrupt", "os.kill(os.getpid(), signal.SIGINT)"])
def test_interrupted_it_writes_nothing(run_process, small, code, repository, stop):
    code("stopped.py", STOPPED.format(stop=stop))
    Path("stats.npz").write_bytes(b"older")
    result = run_process(
        "capture", "stopped.py:Stopped", *SMALL[1:], "--save-stats=stats.npz", "-o", "report.json",
        env={"PYTHONPATH": str(repository)},
    )  # fmt: skip
    assert tuple(result) == (130, "", "")
    assert Path("stats.npz").read_bytes() == b"older"
    assert not Path("report.json").exists()
    assert sorted(path.name for path in Path().iterdir() if path.name.startswith(".")) == []


# ---------------------------------------------------------------------------- what was found


def test_without_a_layer_there_is_nothing_to_capture(run, code):
    np.save("x.npy", np.ones((4, 2), np.float32))
    result = run("capture", "torch.nn:Linear", "--arg=in_features=2", "--arg=out_features=3",
                 "--data=x.npy", "--save-stats=stats.npz", "-f", "json")  # fmt: skip
    assert result.code == 3
    assert result.report["tables"] == {"layers": [], "input": []}
    assert result.report["facts"] == {
        "layers": 0, "batches": 0, "values": 0, "modes": [], "gap": None, "gap_floor": None,
        "ratio": None, "saved_stats": None,
    }  # fmt: skip
    assert result.report["verdict"] == (
        "NOTHING  torch.nn:Linear has no BatchNorm layer, so nothing was captured"
    )
    assert not Path("stats.npz").exists()


def test_layers_that_no_batch_reaches(run, code):
    code(
        "apart.py",
        """
        from torch import nn

        class Apart(nn.Module):
            def __init__(self, used):
                super().__init__()
                self.bn = nn.BatchNorm1d(2)
                self.left = nn.BatchNorm1d(2)
                self.used = used

            def forward(self, x):
                return self.bn(x) if self.used else x
        """,
    )
    np.save("x.npy", np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32))
    result = run("capture", "apart.py:Apart", "--arg=used=False", "--data=x.npy")
    assert result.code == 3
    assert result.stdout == (
        "NOTHING  no batch reaches a BatchNorm layer of apart.py:Apart (bn, left), so nothing was "
        "captured\n"
    )
    result = run("capture", "apart.py:Apart", "--arg=used=True", "--data=x.npy", "-f", "json")
    assert result.code == 0
    assert "no batch reaches left" in result.report["remarks"]


LEFT = """
    from torch import nn
    from tests.live.small import made

    def left():
        net = nn.Sequential(made().eval(), nn.Dropout(0.1))
        net[0].bn2.train()
        net[1].train()
        net.training = False
        return net
"""


def test_what_is_left_in_training_mode_is_a_finding(run, small, code):
    code("left.py", LEFT)
    result = run("capture", "left.py:left", "--data=x*.npy", "--save-stats=s.npz", "-f", "json")
    assert result.code == 0
    assert codes(result) == ["BN801", "BN803"]
    assert finding(result, "BN801")["subject"] == "0.bn2"
    assert finding(result, "BN803")["subject"] == "1"
    assert result.report["verdict"].startswith("WARN  2 warnings in 3 BatchNorm layers (see bncli")
    assert [row["in_training"] for row in table(result, "layers")] == [False, True, False]
    assert Path("s.npz").exists()


def test_nan_in_the_data_is_an_error_and_the_file_is_there(run, small):
    _, tensors = small
    x = tensors[0].numpy().copy()
    x[1, 2, 0, 0] = np.nan
    np.save("nan.npy", x)
    result = run("capture", *SMALL[:2], "--data=nan.npy", "--save-stats=s.npz", "-f", "json")
    assert result.code == 1
    assert "BN804" in codes(result)
    assert [row["nan"] for row in table(result, "input")] == [0, 0, 1]
    assert table(result, "input")[2]["mean"] is None
    assert Path("s.npz").exists()


def test_one_value_a_channel_leaves_evaluation_alone(run, code):
    np.save("x.npy", np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32))
    result = run(
        "capture", "torch.nn:BatchNorm1d", "--arg=num_features=3", "--data=x.npy",
        "--batch-size=1", "-f", "json",
    )  # fmt: skip
    assert result.code == 0
    assert "BN817" in codes(result)
    assert result.report["facts"]["modes"] == ["eval"]
    assert result.report["facts"]["gap"] is None
    assert table(result, "layers")[0]["batches"] == 4


def test_weights_that_move_are_told(run, small, code):
    code(
        "moving.py",
        """
        import torch
        from tests.live.small import Net

        class Moving(Net):
            def forward(self, x):
                self.conv1.weight *= 1.001
                return super().forward(x)
        """,
    )
    result = run("capture", "moving.py:Moving", *SMALL[1:], "-f", "json")
    assert "BN819" in codes(result)


def test_the_model_is_as_it_was(run, small, code):
    """In memory too, as an instance in a module shows."""
    net, _ = small
    code("kept.py", "from tests.live.small import made\nnet = made().train()")
    assert run("capture", "kept.py:net", "--data=x*.npy", "-q").code == 0
    import sys

    kept = next(
        module.net for module in list(sys.modules.values())
        if str(getattr(module, "__file__", "")).endswith("kept.py")
    )  # fmt: skip
    for (name, a), b in zip(net.state_dict().items(), kept.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert all(module.training for module in kept.modules())


# ---------------------------------------------------------------------------- the streams


def test_nothing_but_the_report_is_on_standard_output(run_process, small, code, repository):
    code(
        "loud.py",
        """
        import os
        from tests.live.small import Net

        print("imported")

        class Loud(Net):
            def forward(self, x):
                print("forward")
                os.system("echo from a shell")
                return super().forward(x)
        """,
    )
    result = run_process(
        "capture", "loud.py:Loud", *SMALL[1:], "-f", "json", env={"PYTHONPATH": str(repository)}
    )
    assert result.code == 0
    assert result.report["facts"]["layers"] == 3
    assert {"imported", "forward", "from a shell"} <= set(result.stderr.split("\n"))


def test_quiet_prints_nothing_and_writes_all(run, small):
    result = run("capture", *SMALL, "-q", "-o", "report.json", "--save-stats=stats.npz")
    assert tuple(result) == (0, "", "")
    assert Path("report.json").exists()
    assert Path("stats.npz").exists()


def test_a_baseline_knows_the_model_by_its_weights(run, small, code):
    code("left.py", LEFT)
    call = ("capture", "left.py:left", "--data=x*.npy", "--baseline=known.json")
    assert run(*call, "-q", "--update-baseline").code == 0
    again = run(*call, "-f", "json", "--fail-on=warning")
    assert (again.code, codes(again)) == (0, [])
    assert len(again.report["suppressed"]) == 2


@pytest.mark.parametrize("layers", [21, 40])
def test_many_layers_fit_a_page(run, code, layers):
    code(
        "deep.py",
        f"from torch import nn\nnet = nn.Sequential(*map(nn.BatchNorm1d, [4] * {layers}))",
    )
    np.save("x.npy", np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32))
    lines = run("capture", "deep.py:net", "--data=x.npy", "--width=80").stdout.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    assert any(f"{layers - 19} more layers (-v lists them)" in line for line in lines)
    whole = run("capture", "deep.py:net", "--data=x.npy", "--width=80", "-v").stdout
    assert f"\n{layers - 1} " in whole
