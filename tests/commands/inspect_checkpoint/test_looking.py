"""Whatever the split, the whole of the parts is what one call says, byte by byte."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

from tests.commands.inspect_checkpoint.many import write_many
from tests.commands.inspect_checkpoint.small import small


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A folder with checkpoints, their specs from its parent on, and the parts made of them."""
    folder = tmp_path_factory.mktemp("parts") / "runs"
    folder.mkdir()
    return folder, write_many(folder), {}


@pytest.fixture
def judged(run, many, monkeypatch):
    """Judges specs in parts: `judged(n, *flags)` gives the parts' paths in a random order."""
    monkeypatch.chdir(many[0].parent)

    def parts(n, *flags, specs=many[1], order=0):
        made = many[2]
        key = (n, flags, tuple(specs))
        if key not in made:
            folder = many[0].parent / f"parts{len(made)}"
            folder.mkdir()
            for k in range(n):
                shard = (*specs, *flags, f"--shard={k}/{n}", "-o", folder / f"{k}.json", "-q")
                result = run("inspect-checkpoint", *shard)
                assert result.stdout == ""
                assert result.code in {0, 1, 2, 3}
                assert (folder / f"{k}.json").exists() is (k < len(specs))
            made[key] = sorted(folder.glob("*.json"))
        paths = list(made[key])
        random.Random(order).shuffle(paths)
        return paths

    return parts


def both(run, specs, paths, *flags, late=()):
    """The JSON of one call over all files, and that of the whole of the parts."""
    one = run("inspect-checkpoint", *specs, *flags, *late, "-f", "json")
    whole = run("inspect-checkpoint", *paths, *late, "-f", "json")
    assert '"command": "inspect-checkpoint"' in one.stdout
    return one, whole


@pytest.mark.parametrize("n", [1, 3, 20])
def test_the_whole_is_what_one_call_says(run, many, judged, n):
    one, whole = both(run, many[1], judged(n, order=n))
    assert whole == one
    assert one.code == 2
    assert len(one.report["unread"]) == 2
    assert one.report["facts"]["notes"]


@pytest.mark.parametrize(
    "flags",
    [
        ("--sort", "trouble"),
        ("--sort", "name"),
        ("--layer", "1", "--layer", "*head", "--expect-layers", "3"),
        ("--eps", "1e-3", "--eps", "head=0.5", "--momentum", "none", "--momentum", "st*=0.3"),
        ("--eps", "0", "--no-checksum"),
    ],
    ids=" ".join,
)
def test_with_the_flags_of_the_layers(run, many, judged, flags):
    one, whole = both(run, many[1], judged(4, *flags, order=1), *flags)
    assert whole == one


@pytest.mark.parametrize(
    "late",
    [
        ("--select", "BN2"),
        ("--ignore", "BN201"),
        ("--fail-on", "info"),
        ("--fail-on", "never"),
        ("--baseline", "known.json"),
        ("--sort", "trouble"),
    ],
    ids=" ".join,
)
def test_the_gate_judges_the_whole(run, many, judged, late):
    """Whatever the gate of a part let through: its flags change the exit code of that call."""
    run("inspect-checkpoint", "runs/nan.pt", "--baseline=known.json", "--update-baseline", "-q")
    specs = [spec for spec in many[1] if "cut" not in spec and "missing" not in spec]
    paths = judged(3, "--ignore", "BN", "--fail-on", "never", specs=specs)
    one, whole = both(run, specs, paths, late=late)
    assert whole == one
    assert one.code == (1 if "never" not in late else 0)
    assert bool(one.report["suppressed"]) is (late[0] in {"--select", "--ignore", "--baseline"})


@pytest.mark.parametrize("form", ["csv", "sarif", "junit", "markdown", "github", "concise"])
def test_other_formats_say_the_same(run, many, judged, form):
    paths = judged(3)
    one = run("inspect-checkpoint", *many[1], "-f", form)
    whole = run("inspect-checkpoint", *paths, "-f", form)
    assert whole == one


EXHAUSTIVE = [pytest.param(seed, marks=pytest.mark.exhaustive) for seed in range(4, 200)]


@pytest.mark.parametrize("seed", [*range(4), *EXHAUSTIVE])
def test_random_splits(run, many, judged, seed):
    chance = random.Random(seed)
    specs = chance.sample(many[1], chance.randint(2, 8 if seed < 4 else len(many[1])))
    n = chance.randint(2, len(specs) + 2)
    one, whole = both(run, specs, judged(n, specs=specs, order=seed))
    assert whole == one, (specs, n)


def test_one_file_is_a_whole_of_one_part(run, judged):
    specs = ["runs/nan.pt"]
    one, whole = both(run, specs, judged(3, specs=specs))
    assert whole == one
    assert one.report["facts"]["path"] == "runs/nan.pt"


def test_names_that_are_not_unicode(run, folder):
    names = [b"a\xff.pt".decode(errors="surrogateescape"), "b.pt"]
    try:
        for name in names:
            torch.save(small().state_dict(), "b.pt")
            Path("b.pt").rename(name)
    except (OSError, UnicodeError):
        pytest.skip("this file system takes no such name")
    for k in range(2):
        run("inspect-checkpoint", *names, f"--shard={k}/2", "-o", f"{k}.json", "-q")
    one, whole = both(run, names, ["0.json", "1.json"])
    assert whole == one


def test_a_shard_takes_every_nth_of_the_sorted_models(run, many, judged):
    paths = sorted(judged(4))
    models = sorted(
        spec.replace("runs/sharded", "runs/sharded/pytorch_model.bin.index.json")
        for spec in many[1]
    )
    for k, path in enumerate(paths):
        part = json.loads(path.read_text())["facts"]["part"]
        assert (part["k"], part["n"], part["number"]) == (k, 4, len(models))
        assert [each[0] for each in part["inputs"]] == models[k::4]
        assert f"--shard={k}/4" in part["call"]


def test_a_shard_without_files_is_exit_3_and_writes_nothing(run, folder):
    torch.save(small().state_dict(), "a.pt")
    result = run("inspect-checkpoint", "a.pt", "--shard", "1/2", "-o", "1.json", "-f", "json")
    assert result.code == 3
    assert not Path("1.json").exists()
    assert "shard 1/2 has nothing to do, because there is only 1 input" in result.report["verdict"]
    # Standard output that goes to a file is a part all the same, of no file.
    Path("1.json").write_text(result.stdout)
    run("inspect-checkpoint", "a.pt", "--shard", "0/2", "-o", "0.json")
    one, whole = both(run, ["a.pt"], ["0.json", "1.json"])
    assert whole == one


def test_a_glob_may_mean_layers_of_other_shards_alone(run, folder):
    torch.save(small().state_dict(), "a.pt")
    torch.save({f"x.{key}": value for key, value in small().state_dict().items()}, "b.pt")
    flags = ("--layer", "x.*", "--eps", "x.stem=1e-3")
    for k in range(2):
        result = run(
            "inspect-checkpoint", "a.pt", "b.pt", *flags, f"--shard={k}/2", "-o", f"{k}.json"
        )
        assert result.code == (3, 0)[k]
    assert (
        "--layer x.* means none of the 3 BatchNorm layers of this shard"
        in run("inspect-checkpoint", "a.pt", "b.pt", *flags, "--shard=0/2").stdout
    )
    one, whole = both(run, ["a.pt", "b.pt"], ["1.json", "0.json"], *flags)
    assert whole == one
    for k in range(2):
        run("inspect-checkpoint", "a.pt", "b.pt", "--layer=y", f"--shard={k}/2", "-o", f"y{k}.json")
    one = run("inspect-checkpoint", "a.pt", "b.pt", "--layer=y")
    whole = run("inspect-checkpoint", "y0.json", "y1.json")
    assert whole == one
    assert one.code == 2
