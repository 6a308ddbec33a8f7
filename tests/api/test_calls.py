"""What surrounds a call: nothing of the process is changed, and several calls run at once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import bncli
from bncli.api.calls import surrounded
from bncli.files.reading import current
from bncli.given import called_from_python, is_given, name_of
from tests.live.small import images


@pytest.fixture
def x(save):
    return save("x.npy", np.random.default_rng(0).normal(1, 2, (8, 3, 5)).astype(np.float32))


@pytest.fixture
def net(folder):
    (folder / "api_net.py").write_text("from tests.live.small import made\nnet = made()\n", "utf-8")
    for number, batch in enumerate(images(batches=2)):
        torch.save(batch, f"x{number}.pt")
    return {"data": "x*.pt"}


def state():
    """What a call must leave as it is."""
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    return {
        "handlers": [signal.getsignal(getattr(signal, name)) for name in names],
        "filters": list(warnings.filters),
        "threads": torch.get_num_threads(),
        "streams": (sys.stdin, sys.stdout, sys.stderr, os.fstat(1), os.fstat(2)),
        "places": (list(sys.path), sys.argv, Path.cwd(), dict(os.environ)),
        "random": (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()),  # noqa: NPY002  # the old one
        "call": (current().kept, called_from_python()),
    }


def test_the_process_is_as_before(x, net, capfd):
    def calls():
        bncli.compute(x, against="torch")
        bncli.diff(x, torch_threads=1)
        bncli.simulate_ema(generate=(8, 3, 4), batches=3, against="torch")
        bncli.diagnose("api_net.py:net", **net)
        bncli.capture("api_net.py:net", **net)
        with pytest.raises(bncli.BncliError):
            bncli.diagnose("api_net.py:nothing", **net)

    calls()  # libraries that are imported for the first time add filters for warnings
    before = state()
    calls()
    assert state() == before
    assert capfd.readouterr() == ("", "")


def test_errors_are_those_of_bncli(x):
    for wrong, said in (
        ({"eps": -1}, "--eps -1: eps must be a finite number above 0"),
        ({"channel": 9}, "--channel 9: 9 is not among the channels 0 to 2."),
        ({"rtol": 1}, "--rtol"),
        ({"select": "BN777"}, "--select BN777: there is no rule BN777"),
        ({"update_baseline": True}, "say which file with --baseline FILE"),
    ):
        with pytest.raises(bncli.BncliError, match=said):
            bncli.compute(x, **wrong)
    with pytest.raises(bncli.BncliError, match=r"missing\.npy: there is no such file"):
        bncli.compute("missing.npy")
    with pytest.raises(bncli.BncliError, match="INPUT is missing"):
        bncli.compute()


def test_an_interrupt_passes(net, folder):
    (folder / "api_net.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.bn = torch.nn.BatchNorm2d(3)\n"
        "    def forward(self, x):\n"
        "        raise KeyboardInterrupt\n",
        "utf-8",
    )
    with pytest.raises(KeyboardInterrupt):
        bncli.diagnose("api_net.py:Net", **net)


def test_no_settings_of_the_current_folder_count(x, folder):
    (folder / "pyproject.toml").write_text('[tool.bncli]\nfail-on = "info"\n', "utf-8")
    assert bncli.compute([[1, 2], [3, 4]]).ok  # with a note
    (folder / "pyproject.toml").write_text("[tool.bncli]\nnonsense = 1\n", "utf-8")
    assert bncli.compute(x).ok


def test_calls_in_threads_do_not_see_each_other(save, net):
    paths = [save(f"b{n}.npy", np.full((4, 2), n, np.float32) + np.eye(4, 2)) for n in range(6)]
    alone = [bncli.compute(path, against="torch", channel=0).to_dict() for path in paths]
    live = bncli.diagnose("api_net.py:net", **net).to_dict()
    before = state()
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(bncli.diagnose, "api_net.py:net", **net) for _ in range(2)]
        made = [pool.submit(bncli.compute, each, against="torch", channel=0) for each in paths]
        assert [each.result().to_dict() for each in made] == alone
        assert [each.result().to_dict() for each in runs] == [live, live]
    assert state() == before


def test_a_running_loop_of_asyncio_is_no_hindrance(x):
    async def main():
        inside = bncli.compute(x).to_dict()
        beside = await asyncio.to_thread(bncli.compute, x)
        return inside, beside.to_dict()

    inside, beside = asyncio.run(main())
    assert inside == beside == bncli.compute(x).to_dict()


def test_a_call_within_a_call_has_names_of_its_own():
    one, two = object(), object()
    with surrounded() as outer:
        name = name_of(one)
        with surrounded():
            assert not is_given(name)
            assert name_of(two) == name
        assert outer.objects == {name: one}
        assert is_given(name)
    with surrounded(outer.objects):
        assert is_given(name)
    assert not is_given(name)


def test_a_part_says_how_others_are_made(save):
    for number in range(2):
        save(f"b{number}.npy", np.random.default_rng(number).normal(size=(4, 2)))
    bncli.compute("b*.npy", shard="0/2", save_stats="s0.npz", eps=1e-3, training=True)
    with pytest.raises(bncli.BncliError) as caught:
        bncli.compute("s0.npz")
    said = "bncli compute 'b*.npy' --eps=0.001 --save-stats=s1.npz --shard=1/2"
    assert str(caught.value).endswith(said)
    assert bncli.compute("s0.npz", allow_missing_parts=True).findings[0].code == "BN907"


def test_a_baseline_is_read_and_written(repository, folder):
    path = repository / "examples" / "checkpoint" / "nan.pt"
    assert not bncli.inspect_checkpoint(path).ok
    bncli.inspect_checkpoint(path, baseline=folder / "known.json", update_baseline=True)
    report = bncli.inspect_checkpoint(path, baseline="known.json")
    assert report.ok
    assert report.findings == ()
    assert {item.by for item in report.suppressed} == {"baseline"}
