"""Objects in the place of files: the report says the same, with other names."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import bncli


@pytest.fixture
def objects(save):
    """Arrays, tensors and checkpoints by the name of the file that holds the same."""
    rng = np.random.default_rng(0)
    x = rng.normal(1, 2, (8, 3, 5)).astype(np.float32)
    y = torch.from_numpy(x) * 1.01
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    before = net.state_dict()
    after = {name: value + 1 for name, value in before.items()}
    save("x.npy", x)
    save("y.npy", y)
    save("ones.npy", np.ones(3, np.float32))
    save("net.pt", before)
    save("after.pt", after)
    return {
        "x.npy": x, "y.npy": y, "ones.npy": torch.ones(3), "net.pt": before, "after.pt": after,
        "net.pt::1": net[1],
    }  # fmt: skip


def same(value, names):
    """A part of a JSON report without the names of inputs."""
    text = json.dumps(value)
    for name in names:
        text = text.replace(name, "HERE")
    return text


@pytest.mark.parametrize(
    ("name", "inputs", "given"),
    [
        ("compute", ["x.npy"], {"weight": "ones.npy", "bias": "ones.npy"}),
        ("compute", ["x.npy", "y.npy"], {"per_input": True}),
        ("compute", ["x.npy"], {"state": "net.pt::1", "training": False}),
        ("trace", ["x.npy"], {"backward": True, "grad_output": "y.npy"}),
        ("diff", ["x.npy"], {}),
        ("diff", ["x.npy", "y.npy"], {"input": "x.npy"}),
        ("identify", ["x.npy", "y.npy"], {}),
        ("compare_norms", ["y.npy"], {"groups": 3}),
        ("simulate_ema", ["x.npy", "y.npy"], {"running_mean": "ones.npy",
                                              "running_var": "ones.npy"}),
        ("inspect_checkpoint", ["net.pt", "after.pt"], {}),
        ("compare_checkpoints", ["net.pt", "after.pt"], {"expect": "frozen:*"}),
    ],
)  # fmt: skip
def test_the_numbers_are_those_of_the_file(objects, name, inputs, given):
    function = getattr(bncli, name)
    of_files = function(*inputs, **given).to_dict()
    others = {key: objects.get(value, value) if isinstance(value, str) else value
              for key, value in given.items()}  # fmt: skip
    of_objects = function(*(objects[each] for each in inputs), **others).to_dict()
    names = ["<ndarray 2>", "<ndarray>", "<Tensor 2>", "<Tensor>", "<OrderedDict>", "<dict>",
             "<BatchNorm1d>", *sorted(objects, key=len, reverse=True)]  # fmt: skip
    for part in ("exit_code", "tables", "findings"):
        assert same(of_objects[part], names) == same(of_files[part], names)


def test_objects_are_as_before(objects):
    x, y = objects["x.npy"], objects["y.npy"]
    held = x.copy(), y.clone()
    y.requires_grad_(True)
    bncli.compute(x, against="torch")
    bncli.diff(y, torch_threads=1)
    assert np.array_equal(x, held[0])
    assert torch.equal(y, held[1])
    assert y.grad is None
    assert y.requires_grad


def test_a_page_is_made_after_the_call(objects, folder):
    report = bncli.compute(objects["x.npy"], objects["y.npy"])
    page = report._repr_html_()
    assert "<svg" in page
    report.save("r.html")
    assert (folder / "r.html").stat().st_size > 10_000


def test_an_implementation_is_compared_as_it_is(objects):
    class Wrong(torch.nn.BatchNorm1d):
        def forward(self, x):
            return super().forward(x) + 1

    assert bncli.diff(objects["x.npy"], against=torch.nn.BatchNorm1d).ok
    report = bncli.compute(objects["x.npy"], against=Wrong)
    assert not report.ok
    assert "output" in [row["quantity"] for row in report.table("differences") if not row["passed"]]


def test_what_was_recorded_is_diagnosed(objects):
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)).train()
    with bncli.capture(net) as stats:
        for _ in range(4):
            net(torch.randn(16, 4))
    mine, its = bncli.diagnose(stats), stats.diagnose()
    assert mine.table("layers") == its.table("layers")
    stats.save("stats.npz")
    assert mine.table("layers") == bncli.diagnose("stats.npz").table("layers")
    assert bncli.diagnose(stats, reference=stats).facts["cause"] == mine.facts["cause"]
