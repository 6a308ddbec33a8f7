"""A model's passes while its BatchNorm layers are watched, against the same passes alone."""

from pathlib import Path

import pytest
import torch

from bncli.live.data_source import open_data
from bncli.live.session import Session
from bncli.live.watching import add_input, watched
from bncli.model.capture import Propagation
from bncli.moments.batches import BatchSums

from .conftest import Row
from .mobilenet import images, mobilenet
from .processes import raced

THREADS = 2
WANTED = 1 / 1.3
MEGABYTES = 60
VALUES = 106_849_792
"""Values that the 52 layers see of 16 images."""
ROOT = str(Path(__file__).parents[2])

PASSES = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from tests.benchmarks.mobilenet import mobilenet
torch.set_num_threads(2)
net = mobilenet(settling=0)
if sys.argv[3] == "plain":
    with torch.no_grad():
        for mode in (True, False):
            net.train(mode)(torch.load(sys.argv[2]))
else:
    from bncli.live.data_source import open_data
    from bncli.live.session import Session
    session = Session(net, open_data([sys.argv[2]]))
    with session.open():
        session.capture(renew=False)
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A batch of 16 images."""
    path = tmp_path_factory.mktemp("images") / "images.pt"
    torch.save(images(), path)
    return path


@pytest.fixture
def session(file):
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    session = Session(mobilenet(), open_data([str(file)]))
    with session.open():
        yield session
    torch.set_num_threads(before)


def plain(session, modes):
    """Passes in training mode or not."""
    (batch,) = (batch for _, batch in session.batches())

    def run():
        with torch.no_grad():
            for mode in modes:
                session.model.train(mode)(*batch.args)

    return run


def captured(session, propagation):
    """A pass whose layers' inputs are taken in."""
    (batch,) = (batch for _, batch in session.batches())

    def run():
        sums = {}

        def seen(layer, x):
            add_input(sums.setdefault(layer.name, BatchSums(x.shape[1])), x)

        with watched(session.layers, seen):
            session.runner.forward(batch, propagation)
        assert len(sums) == 52
        assert sum(each.result().values * each.num_features for each in sums.values()) == VALUES

    return run


def in_float32(session):
    """A pass with hooks that take means and variances alone, in float32."""
    run = plain(session, [False])

    def hook(module, given):
        torch.batch_norm_update_stats(given[0], None, None, 0.1)

    def hooked():
        handles = [layer.module.register_forward_pre_hook(hook) for layer in session.layers]
        run()
        for handle in handles:
            handle.remove()

    return hooked


def test_eval_pass(session, race):
    race(
        "MobileNetV2-like, 16 images, eval captured",
        THREADS,
        captured(session, Propagation.EVAL),
        {
            "eval alone": (plain(session, [False]), WANTED),
            "eval, batch_norm_update_stats": (in_float32(session), None),
        },
        values=VALUES,
        rounds=15,
    )


def test_both_passes(session, race):
    race(
        "MobileNetV2-like, 16 images, capture of both passes",
        THREADS,
        lambda: session.capture(renew=False),
        {"training and eval alone": (plain(session, [True, False]), WANTED)},
        values=2 * VALUES,
        rounds=9,
    )


def test_memory(file, rows):
    arguments = {name: (PASSES, ROOT, str(file), name) for name in ("plain", "captured")}
    _, memory = raced(arguments, 3)
    above = memory["captured"] - memory["plain"]
    told = f"{memory['captured']:.0f} MB; alone {memory['plain']:.0f} MB"
    rows.append(
        Row(
            "MobileNetV2-like, capture of both passes, memory",
            f"{MEGABYTES} MB above both alone",
            str(THREADS),
            "",
            told,
            above <= MEGABYTES,
        )
    )
