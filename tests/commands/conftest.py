"""The inputs that commands refuse, and what they say when they do."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from bncli.renderers import SUFFIXES
from tests.commands.samples import random


def refusals(command: str) -> dict[str, str]:
    """The arguments of `command`, and the sentence that they are refused with."""
    text = Path(__file__).with_name("refusals.txt").read_text(encoding="utf-8")
    text = text.replace("SUFFIXES", ", ".join(SUFFIXES))
    return dict(re.findall(rf"^bncli {command} ?(.*)\n    (.+)$", text, re.MULTILINE))


@pytest.fixture
def reported(run, monkeypatch):
    """`reported("compute", "x.npy")` is the `Report` that a call delivers, its pictures unmade."""
    from bncli.cli.delivery import Delivery

    kept = []
    deliver = Delivery.deliver

    def keeping(delivery, report):
        kept.append(report)
        return deliver(delivery, report)

    monkeypatch.setattr(Delivery, "deliver", keeping)

    def reported(*argv: object):
        kept.clear()
        result = run(*argv, "-q")
        assert (result.stdout, len(kept)) == ("", 1), result.stderr
        return kept[0]

    return reported


@pytest.fixture
def bad_inputs(save, folder):
    """Files for the refusals, and one good x.npy of shape (4, 3, 5)."""
    save("x.npy", random(4, 3, 5))
    save("x64.npy", random(4, 3, 5).astype(np.float64))
    save("four.npy", random(4, 4, 5))
    save("long.npy", random(4, 3, 7))
    save("vec.npy", np.ones(4, np.float32))
    save("scalar.npy", np.float32(3))
    save("six.npy", np.ones((1,) * 6, np.float32))
    save("empty.npy", np.ones((0, 3), np.float32))
    save("nochannel.npy", np.ones((3, 0), np.float32))
    save("one.npy", np.ones((1, 3), np.float32))
    save("int.npy", np.ones((4, 3), np.int64))
    save("bool.npy", np.ones((4, 3), bool))
    save("complex.npy", np.ones((4, 3), np.complex64))
    save("two.npz", a=random(4, 3), b=random(4, 3))
    save("w3.npy", np.ones(3))
    save("w4.npy", np.ones(4))
    save("w31.npy", np.ones((3, 1)))
    save("wc.npy", np.ones(3, np.complex64))
    state = {f"bn4.{key}": value for key, value in torch.nn.BatchNorm1d(4).state_dict().items()}
    state |= {"norm.weight": torch.ones(3), "norm.bias": torch.zeros(3)}
    state |= {"half.weight": torch.ones(3), "half.running_mean": torch.zeros(3)}
    save("ck.pt", state)
    (folder / "folder.md").mkdir()
    (folder / "refusals.json").write_text('{"format_version": 1, "findings": [{"code": 3}]}')
    (folder / "old.json").write_text('{"format_version": 1, "findings": []}')
    (folder / "new.json").write_text('{"format_version": 3, "findings": []}')
    return folder


@pytest.fixture
def pictured(run, monkeypatch):
    """A call's JSON, and the pictures that a page of the same report has, by key."""
    from bncli.gate import verdict
    from bncli.pictures import pictures_of

    delivered = []

    def with_verdict(report, *rest):
        delivered.append(report)
        return told(report, *rest)

    told = verdict.with_verdict
    monkeypatch.setattr(verdict, "with_verdict", with_verdict)

    def pictured(*argv: object):
        report = run(*argv, "-f", "json").report
        shown = pictures_of(delivered[-1])
        assert all(each.text.endswith(".") and each.title for each in shown)
        return report, {each.key: each for each in shown}

    return pictured
