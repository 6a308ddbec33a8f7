"""The pages for people who learn: the training loop that checks itself, and the exercises."""

from __future__ import annotations

import re

import pytest
import torch

from tests.conftest import REPOSITORY
from tests.test_docs import BLOCK
from tests.test_examples import script

TRAINING = REPOSITORY / "examples" / "training"


def added(text):
    """The lines of the page's diffs, without their signs."""
    blocks = re.findall(r"^```diff\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return ["".join(f"{line[1:]}\n" for line in block.splitlines()) for block in blocks]


def test_the_lines_that_the_page_adds_are_those_of_the_script():
    code = (TRAINING / "train.py").read_text("utf-8")
    loop, check = added((TRAINING / "README.md").read_text("utf-8"))
    assert check in code
    shown = loop.splitlines()
    lines = code.splitlines()
    where = [lines.index(line) for line in shown]
    assert where == sorted(where)


@pytest.fixture
def loop():
    """The script as a module, with a single check, at its last step."""
    loop = script(TRAINING / "train.py")
    loop.STEPS = loop.EVERY
    return loop


def trained(loop, data):
    """The state after training, of the same beginning each time."""
    torch.manual_seed(0)
    model = loop.net()
    loop.train(model, loop.batches(0), data)
    return model


def test_a_check_changes_nothing(loop, monkeypatch):
    """Bit for bit, running statistics and counters too."""
    checked = trained(loop, loop.batches(1)).state_dict()
    monkeypatch.setattr(loop, "check", lambda *_: None)
    plain = trained(loop, None).state_dict()
    assert list(checked) == list(plain)
    assert all(torch.equal(checked[name], plain[name]) for name in plain)


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (lambda model: model.bn1.running_var.mul_(4), "BN808"),
        (lambda model: model.conv2.weight.fill_(float("nan")), "BN804"),
    ],
    ids=["one layer's variance", "NaN"],
)
def test_a_check_stops_at_what_was_broken(loop, broken, code, monkeypatch, capsys):
    """Of a model that the same check passes before."""
    with monkeypatch.context() as patch:
        patch.setattr(loop, "check", lambda *_: None)
        model = trained(loop, None)
    loop.check(model, loop.batches(1))
    with torch.no_grad():
        broken(model)
    with pytest.raises(SystemExit, match=r"^1$"):
        loop.check(model, loop.batches(1))
    assert f"[{code}]" in capsys.readouterr().out


def test_the_page_shows_a_healthy_run_and_two_that_stop():
    """What it shows is what the script prints, says the test of all pages."""
    healthy, *stopped = BLOCK.findall((TRAINING / "README.md").read_text("utf-8"))
    assert healthy.endswith("step 300 of 300\n")
    assert ["[BN701]" in stopped[0], "divided by 255" in stopped[1]] == [True, True]
    assert all(each.endswith("$ echo $?\n1\n") for each in stopped)
