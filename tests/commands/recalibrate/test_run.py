"""From a model or from files to new statistics: what is refused early, and what has no layers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bncli.commands.recalibrate.flags import EffectFlags, RunFlags, SavedFlags, StatisticsFlags
from bncli.commands.recalibrate.run import from_files, from_model
from bncli.errors import FileError, ModelError, UsageError
from bncli.files.reading import reading
from bncli.model.recalibration import Average

WISH = {"max_error": 1.0}
LAYERLESS = """
    import torch
    from torch import nn

    class Plain(nn.Module):
        def forward(self, x):
            return x

    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn = nn.BatchNorm2d(3)

        def forward(self, x):
            return x

    class Moving(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn = nn.BatchNorm2d(3)

        def forward(self, x):
            with torch.no_grad():
                self.bn.weight.mul_(1.01)
            return self.bn(x)

    class Losing(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn, self.calls = nn.BatchNorm2d(3), 0

        def forward(self, x):
            self.calls += 1
            if self.calls == 5:
                self.bn = nn.BatchNorm2d(3)
            return self.bn(x)
"""


def run(model, checkpoint=None, *, effect=None, saved=None, frozen=None, **wish):
    flags = RunFlags(checkpoint=checkpoint, data=["*.pt"], frozen=frozen)
    wanted = StatisticsFlags(**WISH | wish).wish(stored=False)
    return from_model(model, flags, wanted, effect or EffectFlags(), saved or SavedFlags())


def test_a_model_with_a_checkpoint(spoilt):
    found = run("net.py:Net", "spoilt.pth")
    assert (found.label, found.ran, found.left) == ("net.py:Net", True, {})
    assert [layer.name for layer in found.done.layers] == ["bn1", "bn2", "bn3"]
    assert found.done.checked
    assert found.checkpoint.file.path == Path("spoilt.pth")
    assert not run("net.py:Net", effect=EffectFlags(no_check=True)).done.checked


def test_the_part_is_the_one_that_was_loaded(spoilt):
    import torch

    other = {name: tensor * 2 for name, tensor in spoilt.state_dict().items()}
    torch.save({"live": spoilt.state_dict(), "ema": other}, "two.pth")
    assert run("net.py:Net", "two.pth::ema").checkpoint.targets.part == "ema"
    with pytest.raises(FileError, match="equally"):
        run("net.py:Net", "two.pth")


def test_no_layer(code, net):
    code("plain.py", LAYERLESS)
    found = run("plain.py:Plain")
    assert (found.done, found.left) == (None, {})
    found = run("plain.py:Unused")
    assert (found.done, found.left) == (None, {"bn": "no batch reaches it"})
    found = run("net.py:Net", frozen=["bn*"])
    assert found.done is None
    assert set(found.left.values()) == {"frozen"}


def test_weights_that_move_are_refused(code, net):
    code("plain.py", LAYERLESS)
    with pytest.raises(ModelError, match="the weights of the model changed while it ran"):
        run("plain.py:Moving")


def test_a_layer_that_goes_away_is_refused(code, net):
    code("plain.py", LAYERLESS)
    with pytest.raises(ModelError, match="'bn' took in nothing in a later pass over the same data"):
        run("plain.py:Losing")


def test_a_missing_buffer_is_refused_before_the_model_runs(code, spoilt):
    import torch

    state = spoilt.state_dict()
    del state["bn2.running_var"]
    torch.save(state, "less.pth")
    code("never.py", "from tests.live.small import Net\n\nclass Never(Net):\n"
         "    def forward(self, x):\n        raise SystemExit\n")  # fmt: skip
    flags = RunFlags(checkpoint="less.pth", data=["*.pt"], allow_missing_keys=True)
    wish = StatisticsFlags(**WISH).wish(stored=False)
    with pytest.raises(FileError, match="it has no running_var of bn2"):
        from_model("never.py:Never", flags, wish, EffectFlags(), SavedFlags())


def test_files(captured):
    wish = StatisticsFlags(**WISH).wish(stored=True)
    found = from_files(["stats*.npz"], "spoilt.pth", wish, SavedFlags())
    assert (found.label, found.ran) == ("stats*.npz", False)
    assert [layer.name for layer in found.done.layers] == ["bn1", "bn2", "bn3"]
    assert from_files(["stats.npz"], None, wish, SavedFlags()).checkpoint is None
    with pytest.raises(FileError, match=r"0\.pt: it is not a statistics file"):
        from_files(["0.pt"], None, wish, SavedFlags())
    with reading(), pytest.raises(UsageError, match="would overwrite an input"):
        from_files(["stats.npz"], "spoilt.pth", wish, SavedFlags(save_checkpoint="stats.npz"))


def test_averages_in_the_order_of_batches_take_one_file(captured):
    shutil.copyfile("stats.npz", "stats2.npz")
    wish = StatisticsFlags(**WISH | {"average": Average.EMA}).wish(stored=True)
    assert from_files(["stats.npz"], None, wish, SavedFlags()).done is not None
    with pytest.raises(UsageError, match="the batches in their order, which several statistics"):
        from_files(["stats*.npz"], None, wish, SavedFlags())
