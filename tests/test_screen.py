"""By default every command's report fits a screen of 24 lines and 80 columns, the verdict last."""

from __future__ import annotations

import pytest

from bncli.commands import COMMANDS
from tests.calls import COMPARED, LIVE
from tests.renderers.reports import squeezed

SCREEN, WIDTH = 24, 80

TENSOR = "examples/tutorial/x.npy"
CLIENTS = ("examples/compare/client*.pt",)
EPOCHS = ("examples/compare/epoch*.pt",)
CALLS = {
    "compute": (TENSOR,),
    "compute --against": (TENSOR, "--against", "torch"),
    "trace": (TENSOR,),
    "trace --backward": (TENSOR, "--backward"),
    "diff": (TENSOR,),
    "diff two": (TENSOR, TENSOR),
    "identify": (TENSOR, TENSOR),
    "simulate_ema": (TENSOR,),
    "compare_norms": (TENSOR,),
    "inspect_checkpoint": ("examples/checkpoint/nan.pt",),
    "compare_checkpoints": COMPARED,
    "compare_checkpoints --with": (*CLIENTS, "--with=examples/compare/global.pt"),
    "compare_checkpoints many": EPOCHS,
    "capture": LIVE,
    "recalibrate": (*LIVE, "--max-error=1"),
    "recalibrate --stats": ("--stats=examples/diagnose/stats.npz", "--max-error=1"),
    "diagnose": ("torch.nn:BatchNorm2d", "--arg=num_features=2", f"--data={TENSOR}"),
}
"""The tutorial's tensor; what follows the command's name tells calls apart."""

CATALOGUES = {"conventions", "rules"}
"""They may be longer than a screen."""


def test_no_command_is_forgotten():
    assert {name.split()[0] for name in CALLS} == {*COMMANDS} - CATALOGUES


@pytest.mark.parametrize("name", CALLS)
def test_the_default_report_fits_a_screen(run, repository, monkeypatch, name):
    monkeypatch.chdir(repository)
    command = name.split()[0].replace("_", "-")
    result = run(command, *CALLS[name], "--width", WIDTH)
    lines = result.stdout.splitlines()
    assert result.code in (0, 1)
    assert len(lines) <= SCREEN
    assert max(map(len, lines)) <= WIDTH
    verdict = run(command, *CALLS[name], "-f", "json").report["verdict"]
    assert squeezed(result.stdout).endswith(squeezed(verdict))
