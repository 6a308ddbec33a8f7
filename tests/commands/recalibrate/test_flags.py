"""Flags that do not go together, and those that make no sense: a sentence, and nothing runs."""

from __future__ import annotations

from pathlib import Path

import pytest

STATS = ("--stats=stats.npz",)
MODEL = ("net.py:Net", "--data=*.pt")
CHECKPOINT = ("--checkpoint=spoilt.pth",)
SAVE = (*CHECKPOINT, "--save-checkpoint=new.pth")

REFUSED = {
    (): "recalibrate needs a model and its data, or --stats with files that bncli capture saved",
    CHECKPOINT: "name MODEL with --data, to run it, or give --stats with statistics files",
    (*MODEL, *STATS): "net.py:Net and --stats are both given; leave --stats out to run the model",
    (*STATS, "other.npz"): "other.npz: put --stats before it, or quotes around a pattern.",
    (*STATS, "--data=0.pt"): "--data does not apply to statistics files; leave it out.",
    (*STATS, "--metric=metrics.py:square"): "--metric does not apply to statistics files",
    (*STATS, "--no-check"): "--no-check does not apply to statistics files",
    (*STATS, "--propagate=eval"): "a single eval pass through the wrong statistics",
    (*MODEL, "--average=ema", "--propagate=eval"): "does not go with --average ema",
    (*MODEL, "--average=batches", "--propagate=eval"): "does not go with --average batches",
    (*MODEL, "--momentum=0.1"): "--momentum is for --average ema",
    (*MODEL, "--average=ema", "--momentum=2"): "--momentum 2: give a number from 0 to 1.",
    (*MODEL, "--average=ema", "--momentum=nan"): "--momentum nan: give a number from 0 to 1.",
    (*MODEL, "--max-error=-1"): "--max-error -1: give a number above 0, such as 0.01.",
    (*MODEL, "--max-error=nan"): "--max-error nan: give a number above 0, such as 0.01.",
    (*MODEL, "--metric-goal=max"): "--metric-goal is for --metric, which is not given",
    (*MODEL, "--metric=metrics.py:square", "--no-check"): "which --no-check leaves out",
    (*MODEL, "--save-checkpoint=new.pth"): "add --checkpoint FILE.",
    (*MODEL, *CHECKPOINT, "--force"): "--force is for --save-checkpoint, which is not given",
    (*MODEL, *CHECKPOINT, "--no-verify"): "--no-verify is for --save-checkpoint, which is not",
    (*MODEL, "--counter=0"): "--counter is for --checkpoint, which is not given",
    (*MODEL, *CHECKPOINT, "--counter=-1"): "--counter -1: write keep, batches, or a number",
    (*MODEL, *CHECKPOINT, "--counter=99999999999999999999"): "write keep, batches, or a number",
    (*MODEL, "--convention=torch"): "--convention torch: there is no such convention",
    (*MODEL, "--layer=bn9"): "the model has no such BatchNorm layer; it has bn1, bn2 and bn3.",
    (*MODEL, *CHECKPOINT, "--save-checkpoint=spoilt.pth", "--force"): "would overwrite an input",
    (*MODEL, *CHECKPOINT, "--save-checkpoint=0.pt", "--force"): "would overwrite an input",
    (*MODEL, *CHECKPOINT, "--save-checkpoint=metrics.py"): "it exists already; name another file",
    (*MODEL, *CHECKPOINT, "--save-checkpoint=gone/new.pth"): "the folder 'gone' does not exist",
    (*MODEL, *CHECKPOINT, "--save-checkpoint=new.md", "-o", "new.md"): "--output names it too",
    (*MODEL, "--checkpoint=gone.pth", "--save-checkpoint=new.pth"): "there is no such file",
    (*MODEL, *CHECKPOINT, "--save-checkpoint=new/"): "it names a folder; name a file in it.",
    (*MODEL, *CHECKPOINT, "--save-checkpoint="): "--save-checkpoint has no name; name the file",
    (*MODEL, *CHECKPOINT, "--save-checkpoint=n.safetensors"): "which .safetensors does not say;",
    (*MODEL, "--max-error=0"): "--max-error 0: give a number above 0, such as 0.01.",
    ("--stats=metrics.py",): "metrics.py: it is not a statistics file; save one with bncli capture",
    ("--stats=gone*.npz",): "no file fits this pattern",
}


@pytest.mark.parametrize(("flags", "said"), REFUSED.items(), ids=" ".join)
def test_a_sentence_says_what_is_wrong(run, captured, flags, said):
    del captured
    before = Path("spoilt.pth").read_bytes()
    result = run("recalibrate", *flags)
    assert tuple(result)[:2] == (2, "")
    assert result.stderr.count("\n") == 1
    assert said in result.stderr
    assert not Path("new.pth").exists()
    assert Path("spoilt.pth").read_bytes() == before


def test_a_momentum_has_the_meaning_of_the_convention(recalibrated, spoilt):
    """Keras' 0.9 is PyTorch's 0.1."""
    flags = ("--average=ema", "--no-check")
    keras = recalibrated("spoilt.pth", *flags, "--convention=keras3", "--momentum=0.9")
    torch = recalibrated("spoilt.pth", *flags, "--momentum=0.1")
    for one, other in zip(keras["tables"]["layers"], torch["tables"]["layers"], strict=True):
        assert one["z_max"] == pytest.approx(other["z_max"], rel=0.1)  # of a biased variance
