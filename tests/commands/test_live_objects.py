"""Models, data, metrics and statistics in memory, beside the same in files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import bncli
from bncli.errors import BncliError
from tests.objects import Part, alike, run, said

CODE = """
import torch
from torch import nn

def net():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4),
        nn.Flatten(), nn.Linear(64, 2),
    )

x = torch.load("x.pt")
halves = [x[:16], x[16:]]

def made():
    yield from halves

def loss(output, batch):
    return output.mean()
"""
COMMANDS = ("diagnose", "capture", "recalibrate")


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A model with a layer that is off, its weights and a batch, as objects and as files."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save(x := torch.randn(32, 3, 8, 8) + 1, "x.pt")
    (tmp_path / "seg.py").write_text(CODE, encoding="utf-8")
    names: dict = {}
    exec(CODE, names)
    net = names["net"]()
    net(x)
    net[1].running_mean += 1
    torch.save(net.state_dict(), "net.pt")
    return {**names, "model": net.eval(), "x": x}


def same(report, other):
    """Whether two reports say the same, but for where the layers are and what is in a file."""
    for each in (report, other):
        for key in ("bytes_changed", "serialization_id", "part"):
            each["facts"].pop(key, None)
        for finding in each["findings"]:
            finding.pop("path")
    return report == other


DATA = {
    "tensor": (lambda t: t["x"], {"data": ["x.pt"]}, {}),
    "array": (lambda t: t["x"].numpy(), {"data": ["x.pt"]}, {}),
    "pieces": (lambda t: t["x"], {"data": ["x.pt"]}, {"batch_size": 16}),
    "list": (lambda t: t["halves"], {"data": ["seg.py:halves"]}, {}),
    "function": (lambda t: t["made"], {"data": ["seg.py:made"]}, {}),
    "loader": (
        lambda t: torch.utils.data.DataLoader(t["x"], batch_size=16),
        {"data": ["seg.py:halves"]},
        {},
    ),
    "pairs": (lambda t: (t["x"], torch.zeros(32)), {"data": ["x.pt"]}, {}),
    "named": (
        lambda t: {"label": torch.zeros(32), "image": t["x"]},
        {"data": ["x.pt"]},
        {"input_key": ["image"]},
    ),
}


@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_model_and_its_data_in_memory_say_what_files_of_them_say(there, command, kind):
    make, files, flags = DATA[kind]
    ours = flags if kind != "named" else {}
    expected = said(command, "seg.py:net", **files, **ours, checkpoint="net.pt")
    assert same(said(command, there["model"], data=[make(there)], **flags), expected)


@pytest.mark.parametrize("command", ["diagnose", "capture"])
def test_a_function_and_a_state_dict_are_a_model_and_its_checkpoint(there, command):
    expected = said(command, "seg.py:net", data=["x.pt"], checkpoint="net.pt")
    state = there["model"].state_dict()
    report = said(command, there["net"], data=[there["x"]], checkpoint=state)
    assert report["facts"].get("input", "") == expected["facts"].get("input", "")
    assert same(alike(report, {"<OrderedDict>": "net.pt"}), expected)


def test_a_function_is_a_metric_by_its_name(there):
    expected = said("diagnose", "seg.py:net", data=["x.pt"], checkpoint="net.pt",
                    metric="seg.py:loss")  # fmt: skip
    report = said("diagnose", there["model"], data=[there["x"]], metric=there["loss"])
    assert report["facts"]["metric"] == "<loss>"
    assert same(alike(report, {"<loss>": "seg.py:loss"}), expected)


@pytest.mark.parametrize(
    ("model", "data", "sentence"),
    [
        ("x", "x", r"^MODEL <Tensor>: it is a torch.Tensor, not a model"),
        ("state", "x", r"^MODEL <OrderedDict>: it is a collections.OrderedDict, not a model"),
        ("model", "generator", r"^<generator>: it is a generator, which can be read once only"),
        ("model", "dataset", r"^<TensorDataset>: it is a Dataset, which gives samples"),
        ("model", "both", r"^<dict>: it holds 2 tensors \(a, b\); say which is the input"),
        ("model", "number", r"^<int64>: shape \[\] holds no samples"),
        ("loss", "x", r"^<loss> needs output, batch; give each"),
    ],
)
def test_what_is_no_model_and_no_data_is_one_sentence(there, model, data, sentence):
    given = {
        **there,
        "state": there["model"].state_dict(),
        "generator": there["made"](),
        "dataset": torch.utils.data.TensorDataset(there["x"]),
        "both": {"a": there["x"], "b": there["x"]},
        "number": np.int64(7),
    }
    for command in COMMANDS:
        with pytest.raises(BncliError, match=sentence):
            run(command, given[model], data=[given[data]])


def recorded(there, **flags):
    with bncli.capture(there["model"].train(), **flags) as stats:
        for batch in there["halves"]:
            there["model"](batch)
    return stats


def test_what_was_recorded_is_as_its_statistics_file(there):
    stats = recorded(there, per_batch=True)
    stats.save("stats.npz")
    for given in (stats, stats.capture):
        name = {f"<{type(given).__name__}>": "stats.npz"}
        for command, ours, files in (
            ("diagnose", ([given], {}), (["stats.npz"], {})),
            (
                "diagnose",
                ([given], {"reference": given}),
                (["stats.npz"], {"reference": "stats.npz"}),
            ),
            ("recalibrate", ([], {"stats": [given]}), ([], {"stats": ["stats.npz"]})),
            (
                "recalibrate",
                ([], {"stats": [given], "checkpoint": "net.pt"}),
                ([], {"stats": ["stats.npz"], "checkpoint": "net.pt"}),
            ),
            ("compute", ([Part(given, "1")], {}), (["stats.npz::1"], {})),
            ("simulate_ema", ([Part(given, "4")], {}), (["stats.npz::4"], {})),
            (
                "compute",
                ([there["x"][:, :1].expand(-1, 4, -1, -1)], {"state": Part(given, "1")}),
                None,
            ),
        ):
            report = said(command, *ours[0], **ours[1])
            if files is not None:
                assert alike(report, name) == said(command, *files[0], **files[1])
    with pytest.raises(
        BncliError, match=r"^<Recorded>: it holds the statistics of a model's layers"
    ):
        run("inspect_checkpoint", stats)
    with pytest.raises(BncliError, match=r"^<dict>: it is not a statistics file"):
        run("recalibrate", stats=[{}])


def test_a_checkpoint_in_memory_is_not_written_to(there):
    state = there["model"].state_dict()
    with pytest.raises(BncliError, match=r"^<OrderedDict>: an object in memory cannot be edited"):
        run("recalibrate", there["model"], data=[there["x"]], checkpoint=state,
            save_checkpoint="new.pt")  # fmt: skip


def test_a_capture_in_memory_is_saved_and_not_taken_for_another_models(there):
    model, flags = there["model"], {"data": [there["x"]], "save_stats": "stats.npz"}
    run("capture", model, **flags)
    run("capture", "seg.py:net", data=["x.pt"], checkpoint="net.pt", save_stats="other.npz")
    assert said("diagnose", "stats.npz")["tables"] == said("diagnose", "other.npz")["tables"]
    run("capture", model, **flags, resume=True)
    with torch.no_grad():
        model[0].weight.mul_(2)
    with pytest.raises(BncliError, match="weights of MODEL"):
        run("capture", model, **flags, resume=True)


def test_batches_are_not_changed_by_layers_in_place(there):
    x = there["x"].clone()
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Hardswish(inplace=True))
    for data in ([x], [[x[:16], x[16:]]]):
        run("diagnose", nn.Sequential(nn.ReLU(inplace=True), model), data=data)
    assert torch.equal(x, there["x"])
