"""`bncli capture --shard`: parts that any scheduler makes, and what they come to."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from bncli.loaders.statistics import open_statistics, read_statistics
from bncli.loaders.statistics.merging import merged
from bncli.model.capture import Propagation
from tests.commands.capture.conftest import SMALL
from tests.commands.samples import finding, table
from tests.live.small import images

TRAINING, EVAL = Propagation.TRAINING, Propagation.EVAL
EXACT = ("values", "samples", "batches", "batches_with_var")
ARRAYS = ("min", "max", "at_min", "at_max", "at_zero", "nan", "posinf", "neginf")


def part_of(run, k, n, *more, name="p{}.npz", code=0):
    """The file of a shard, made by the command."""
    target = name.format(k)
    args = [*SMALL, f"--shard={k}/{n}", "--save-stats", target, "-q", *more]
    assert run("capture", *args).code == code
    return target


def check_same(found, wanted):
    """The sums of both propagations agree: counts and extremes exactly, moments to 1e-12."""
    assert [layer.name for layer in found.layers] == [layer.name for layer in wanted.layers]
    for mine, theirs in zip(found.layers, wanted.layers, strict=True):
        for propagation in (TRAINING, EVAL):
            got, sums = mine.seen[propagation], theirs.seen[propagation]
            assert [getattr(got, key) for key in EXACT] == [getattr(sums, key) for key in EXACT]
            for key in ARRAYS:
                np.testing.assert_array_equal(getattr(got, key), getattr(sums, key), key)
            scale = np.sqrt(sums.var) + np.abs(sums.mean)
            assert (np.abs(got.mean - sums.mean) <= 1e-12 * scale).all()
            np.testing.assert_allclose(got.var, sums.var, rtol=1e-12)
    for mine, theirs in zip(found.outputs, wanted.outputs, strict=True):
        assert mine.count == theirs.count
        np.testing.assert_allclose(mine.mean, theirs.mean, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(mine.squares, theirs.squares, rtol=1e-12)
        assert mine.apart[EVAL] == pytest.approx(theirs.apart[EVAL], rel=1e-12)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_parts_come_to_the_whole(run, small, n):
    whole = "whole.npz"
    assert run("capture", *SMALL, "--save-stats", whole, "-q").code == 0
    parts = [part_of(run, k, n) for k in range(n)]
    found = read_statistics(parts)
    check_same(found, open_statistics(whole))
    assert (found.part.k, found.part.n, found.part.batches, found.part.number) == (0, 1, 4, 4)
    assert [each.path for each in found.part.inputs] == [f"x{i}.npy" for i in range(4)]
    for order in itertools.permutations(parts):
        again = read_statistics(order)
        assert again.outputs[0].apart == found.outputs[0].apart
        for mine, theirs in zip(again.layers, found.layers, strict=True):
            for propagation, sums in theirs.seen.items():
                got = mine.seen[propagation]
                assert all(
                    np.array_equal(getattr(got, key), getattr(sums, key), equal_nan=True)
                    for key in type(sums).__dataclass_fields__
                )


def test_pieces_of_files_are_shared_out_one_by_one(run, small):
    """A file that is cut has batches of several shards; the last piece of each is smaller."""
    cut = ["--batch-size=3", "--per-batch"]
    assert run("capture", *SMALL, *cut, "--save-stats", "whole.npz", "-q").code == 0
    parts = [part_of(run, k, 5, *cut) for k in range(5)]
    whole, found = open_statistics("whole.npz"), read_statistics(parts[::-1])
    check_same(found, whole)
    for key, table_ in whole.per_batch.items():  # in the order of one process
        if key[1] in (TRAINING, EVAL):
            for name, values in table_.items():
                np.testing.assert_array_equal(found.per_batch[key][name], values, f"{key} {name}")


def test_batches_of_code_are_counted_over_all_data(run, small, code):
    """What the loader gives to others is not even looked at; files stand before and behind it."""
    code(
        "load.py",
        """
        import numpy as np, torch
        def batches():
            for i in range(1, 4):
                yield torch.from_numpy(np.load(f"x{i}.npy"))
            yield "no batch, but that of another shard"
        """,
    )
    model = SMALL[:2]
    data = ("--data=x0.npy", "--data=load.py:batches", "--data=x1.npy")
    for k in (0, 2):
        args = ("capture", *model, *data, f"--shard={k}/3", "--save-stats", f"p{k}.npz")
        assert run(*args, "-q").code == 0
    capture = open_statistics("p0.npz")  # batches 0 and 3, which are x0.npy and x3.npy
    x = np.concatenate([np.load(f"x{i}.npy") for i in (0, 3)]).astype(float)
    np.testing.assert_allclose(
        capture.layers[0].seen[EVAL].mean, x.mean((0, 2, 3)), rtol=1e-12, atol=1e-14
    )
    assert [each.path for each in capture.part.inputs] == ["x0.npy", "load.py:batches"]
    assert (capture.part.batches, capture.part.number) == (2, 6)
    other = open_statistics("p2.npz").part
    assert [each.path for each in other.inputs] == ["load.py:batches", "x1.npy"]
    assert (other.digest, other.nbytes) == (capture.part.digest, capture.part.nbytes)


def test_only_the_first_batches_are_shared_out(run, small):
    part_of(run, 1, 2, "--batches=3")
    assert [each.path for each in open_statistics("p1.npz").part.inputs] == ["x1.npy"]


def test_files_of_other_shards_are_not_opened(run, small):
    for i in (0, 2, 3):
        Path(f"x{i}.npy").write_bytes(b"no tensor")
    assert open_statistics(part_of(run, 1, 4)).part.number == 4


def test_what_is_random_in_the_model_is_so_in_its_own_batch(run, small, code):
    """A model that draws numbers in evaluation, too, draws those that it would in one process."""
    code(
        "noisy.py",
        """
        import torch
        from tests.live.small import Net
        class Noisy(Net):
            def forward(self, x):
                return super().forward(x + 0.1 * torch.randn_like(x))
        """,
    )
    given = ("capture", "noisy.py:Noisy", *SMALL[1:])
    run(*given, "--save-stats", "whole.npz", "-q")
    for k in range(3):
        run(*given, f"--shard={k}/3", "--save-stats", f"p{k}.npz", "-q")
    check_same(read_statistics([f"p{k}.npz" for k in range(3)]), open_statistics("whole.npz"))


def test_a_single_sample_is_left_out_as_in_one_process(run, small):
    """Though the shard that has it alone runs in evaluation, as it has no other batch."""
    np.save("x4.npy", np.load("x0.npy")[:1])
    code = ("capture", "net.py:Net", "--data=x*.npy")
    run(*code, "--save-stats", "whole.npz", "-q")
    for k in range(5):
        run(*code, f"--shard={k}/5", "--save-stats", f"p{k}.npz", "-q")
    whole, parts = open_statistics("whole.npz"), [open_statistics(f"p{k}.npz") for k in range(5)]
    assert whole.left_out
    assert parts[4].refused_training
    found = merged(parts)
    check_same(found, whole)
    assert (found.refused_training, len(found.left_out)) == ("", 1)


# ---------------------------------------------------------------------------- what is refused


def test_an_empty_shard_has_nothing_to_do(run, small, code):
    result = run("capture", *SMALL, "--shard=4/5", "--save-stats", "p.npz")
    assert result.code == 3
    assert "shard 4/5 has nothing to do, because there are only 4 batches" in result.stdout
    code("load.py", "import torch\ndef batches():\n    yield torch.ones(4, 3, 8, 8)\n")
    args = ("--data=load.py:batches", "--shard=1/2", "--save-stats", "p.npz")
    result = run("capture", *SMALL[:2], *args)
    assert (result.code, "there is only 1 batch" in result.stdout) == (3, True)
    assert not Path("p.npz").exists()
    part = part_of(run, 0, 5)
    again = run("diagnose", part, *(part_of(run, k, 5) for k in (1, 2, 3)), "-q")
    assert (again.code, again.stderr) == (0, "")  # and merging does not miss it


@pytest.mark.parametrize("command", ["diagnose", "recalibrate", "compute", "simulate-ema"])
def test_what_does_not_add_up_is_named(run, small, command):
    def refused(*files, more=()):
        before = {
            "diagnose": [*files],
            "recalibrate": [each for file in files for each in ("--stats", file)],
            "compute": [f"{file}::bn1" for file in files],
            "simulate-ema": [f"{file}::bn1" for file in files],
        }[command]
        result = run(command, *before, *more)
        return result.code, result.stderr + result.stdout

    every = [part_of(run, k, 3, "--per-batch") for k in range(3)]
    assert refused(*every, more=["-q", "--fail-on=never"])[0] == 0
    code, said = refused(every[0], every[2])
    assert (code, "shard 1/3 is missing" in said) == (2, True)
    assert "with: bncli capture net.py:Net" in said
    assert "--shard=1/3 --save-stats p1.npz" in said
    Path("twice.npz").write_bytes(Path(every[1]).read_bytes())
    code, said = refused(*every, "twice.npz")
    assert (code, "it is shard 1/3, and so is" in said) == (2, True)
    other = part_of(run, 1, 4, "--per-batch", name="n{}.npz")
    code, said = refused(*every, other)
    assert (code, f"{other}: it was made with --shard 1/4" in said) == (2, True)
    seed = part_of(run, 1, 3, "--per-batch", "--seed=2", name="seed.npz")
    code, said = refused(every[0], seed, every[2])
    assert (code, "made with --seed 2, but the 2 other parts were made with --seed 0" in said) == (
        2,
        True,
    )
    code, said = refused(every[0], every[2], more=["--allow-missing-parts", "--fail-on=never"])
    assert code == 0
    assert "BN907" in said
    np.save("x1.npy", np.zeros((8, 3, 8, 8), np.float32))
    code, said = refused(*every)
    assert (code, "its input x1.npy has changed" in said) == (2, True)


def test_the_missing_share_is_that_of_the_batches(run, small):
    parts = [part_of(run, k, 3) for k in (1, 2)]
    result = run("diagnose", *parts, "--allow-missing-parts", "-f", "json")
    missing = finding(result, "BN907")
    assert missing["message"].endswith("with about 50% of the batches")  # 0 and 3 of 4
    assert missing["evidence"]["missing_share"] == 0.5


def test_parts_of_other_weights_or_code_are_refused(run, small, code):
    first = part_of(run, 0, 2)
    net, _ = small
    state = {key: value * 2 for key, value in net.state_dict().items()}
    torch.save(state, "net.pth")
    result = run("diagnose", first, part_of(run, 1, 2))
    assert (result.code, "made with checkpoint net.pth of " in result.stderr) == (2, True)
    torch.save(net.state_dict(), "net.pth")
    code("net.py", "from tests.live.small import Net\n# changed\n")
    result = run("diagnose", first, part_of(run, 1, 2, name="other{}.npz"))
    assert (result.code, "made with code net.py of " in result.stderr) == (2, True)


def test_a_checkpoint_that_is_called_like_the_code_does_not_hide_it(run, small, folder):
    (folder / "net").mkdir()
    torch.save(small[0].state_dict(), "net/model.pth")
    call = ("capture", "net:Net", "--checkpoint=net", "--data=x*.npy", "--shard=0/2", "-q")
    run(*call, "--save-stats=p0.npz")
    assert {"code net", "checkpoint net"} < set(open_statistics("p0.npz").part.flags)


def test_a_part_is_not_said_to_be_judged_alone(run, small):
    call = ("capture", *SMALL, "--shard=0/2", "--save-stats")
    said = run(*call, "c0.npz").stdout.splitlines()[-1]
    assert said.startswith("saved to c0.npz (")
    assert said.endswith("; bncli diagnose PARTS judges it together with the other parts")


REPLACING = """
    from pathlib import Path
    from tests.live.small import Net
    class Replacing(Net):
        def forward(self, x):
            if Path("new").exists():
                Path("new").replace(Path("which").read_text())
            return super().forward(x)
"""


@pytest.mark.parametrize("which", ["x0.npy", "net.pth", "user.py", "load.py"])
@pytest.mark.parametrize("flags", [("--shard=0/2",), ()], ids=["shard", "whole"])
def test_what_is_replaced_during_the_passes_is_not_recorded(run, small, code, which, flags):
    """Each time by something that could have been there from the start."""
    code("user.py", REPLACING)
    load = "import numpy as np, torch\ndef batches():\n    yield torch.ones(4, 3, 8, 8)\n"
    code("load.py", load)
    if which == "net.pth":
        torch.save({k: v + 1 for k, v in small[0].state_dict().items()}, "new")
    elif which == "x0.npy":
        np.save("new.npy", images(1, seed=9)[0].numpy())
        Path("new.npy").rename("new")
    else:
        Path("new").write_text(Path(which).read_text() + "# later\n")
    Path("which").write_text(which)
    call = ("capture", "user.py:Replacing", *SMALL[1:], "--data=load.py:batches", *flags)
    result = run(*call, "--save-stats=s.npz")
    assert (result.code, result.stdout) == (2, "")
    assert result.stderr == (
        f"bncli: {which}: it was written to or replaced after bncli had read it; wait until it is "
        "complete, and run again.\n"
    )
    assert not Path("s.npz").exists()


def test_files_of_other_shards_may_be_replaced_meanwhile(run, small, code):
    code("user.py", REPLACING)
    Path("new").write_bytes(Path("x1.npy").read_bytes())
    Path("which").write_text("x1.npy")
    call = ("capture", "user.py:Replacing", *SMALL[1:], "--shard=0/2", "--save-stats=s.npz")
    assert run(*call).code == 0
    assert not Path("new").exists()


# ---------------------------------------------------------------------------- resuming


def test_a_finished_part_is_not_made_again(run, small, monkeypatch):
    call = ("capture", *SMALL, "--shard=1/2", "--save-stats", "p1.npz")
    first = run(*call, "--resume", "-f", "json")
    before = Path("p1.npz").read_bytes()
    twice = run(*call)
    assert (twice.code, "p1.npz: it exists already" in twice.stderr) == (2, True)
    import bncli.arguments.model as opened

    monkeypatch.setattr(opened, "open_session", None)  # the model is not built
    monkeypatch.setattr(opened, "open_model_data", None)
    again = run(*call, "--resume", "-f", "json")
    assert (again.code, table(again, "layers")) == (0, table(first, "layers"))
    assert "so the model did not run" in str(again.report["remarks"])
    assert again.report["facts"].items() >= first.report["facts"].items()
    assert Path("p1.npz").read_bytes() == before


def test_a_whole_is_resumed_too(run, small):
    assert run("capture", *SMALL, "--save-stats", "s.npz", "-q").code == 0
    again = run("capture", *SMALL, "--save-stats", "s.npz", "--resume")
    assert (again.code, "did not run" in again.stdout) == (0, True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--seed=1"], "it was made with --seed 0, but this call is with --seed 1"),
        (["--shard=0/2"], "it is shard 1/2, and this call makes shard 0/2"),
        (["--batches=3"], "it was made without --batches, but"),
        ("x1.npy", "x1.npy has changed since it was read"),
        ("x9.npy", "it is of 4 batches, and the data have other files"),
        ("net.py", "it was made with code net.py of "),
        ("net.pth", "it was made with checkpoint net.pth of "),
    ],
)
def test_what_is_not_the_same_is_not_resumed(run, small, change, said):
    part_of(run, 1, 2)
    before = Path("p1.npz").read_bytes()
    flags = list(change) if isinstance(change, list) else []
    if change == "net.py":
        Path("net.py").write_text("from tests.live.small import Net\n\n")
    elif change == "net.pth":
        torch.save({k: v + 1 for k, v in small[0].state_dict().items()}, "net.pth")
    elif not flags:
        np.save(str(change), images(1, seed=9)[0].numpy())
    flags = flags if any("shard" in flag for flag in flags) else ["--shard=1/2", *flags]
    result = run("capture", *SMALL, *flags, "--save-stats", "p1.npz", "--resume")
    assert (result.code, said in result.stderr) == (2, True)
    assert Path("p1.npz").read_bytes() == before


def test_a_loader_that_has_become_longer_is_not_resumed(run, small, code):
    code(
        "load.py",
        "import glob, numpy as np, torch\nfiles = sorted(glob.glob('x*.npy'))\n"
        "class Files:\n    def __len__(self):\n        return len(files)\n"
        "    def __getitem__(self, i):\n        return torch.from_numpy(np.load(files[i]))\n"
        "batches = Files()\n",
    )
    call = ("capture", *SMALL[:2], "--data=load.py:batches", "--save-stats=s.npz", "--resume")
    assert run(*call, "-q").code == 0
    assert "did not run" in run(*call).stdout
    import sys

    np.save("x9.npy", images(1)[0].numpy())
    del sys.modules["load"]
    result = run(*call)
    assert (result.code, "it is of 4 batches, and" in result.stderr) == (
        2,
        True,
    )


def test_flags_that_do_not_go_together(run, small):
    for flags, said in (
        (["--resume"], "add --save-stats"),
        (["--shard=4/4"], "K must be from 0 to 3"),
        (["--data=-", "--shard=0/2"], "standard input can be read once only"),
    ):
        result = run("capture", *SMALL, *flags)
        assert (result.code, said in result.stderr) == (2, True)


def test_the_report_of_merged_parts_says_whose_floor_it_is(run, small):
    parts = [part_of(run, k, 4) for k in range(4)]
    result = run("diagnose", *parts, "-f", "json")
    assert result.report["facts"]["renewals"] == 4
    assert "found in each of 4 parts for its own batches" in " ".join(result.report["remarks"])
    assert "1 batch in each part is too few" in result.report["verdict"]
    alone = run("diagnose", parts[0], "--allow-missing-parts", "-f", "json")
    assert "renewals" not in alone.report["facts"]


def test_a_simulation_takes_the_batches_in_the_order_of_one_process(run, small):
    cut = ["--batch-size=3", "--per-batch"]
    run("capture", *SMALL, *cut, "--save-stats", "whole.npz", "-q")
    files = [f"{part_of(run, k, 5, *cut)}::bn2" for k in range(5)]
    whole, parts = (
        run("simulate-ema", *given, "-f", "json") for given in (["whole.npz::bn2"], files[::-1])
    )
    assert table(parts, "steps") == table(whole, "steps")
    other = run("simulate-ema", files[0], "p1.npz::bn1")
    assert (other.code, "give one name" in other.stderr) == (2, True)
    twice = run("simulate-ema", "whole.npz::bn2", files[0])
    assert twice.code == 2


def test_a_simulation_needs_the_order_of_the_batches(run, small):
    for i in range(2):  # the last piece of each is one sample
        np.save(f"x{i}.npy", np.load(f"x{i}.npy")[:7])
    cut = ["--batch-size=3", "--per-batch", "--data=x0.npy"]
    model = ("capture", "net.py:Net", *cut, "--data=x1.npy")
    for k in range(2):
        assert run(*model, f"--shard={k}/2", "--save-stats", f"p{k}.npz", "-q").code == 0
    result = run("simulate-ema", "p0.npz::bn1", "p1.npz::bn1")
    assert (result.code, "the order of all batches is not known" in result.stderr) == (2, True)
