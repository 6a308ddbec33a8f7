"""The examples: their tensors are what their lines make, and the tutorial's numbers are right."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from bncli.cli import main
from bncli.loaders import open_file
from bncli.loaders.statistics import open_statistics
from bncli.model.capture import Propagation
from tests.test_docs import environment

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "tutorial"
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")
TABLE = PAGE[PAGE.index("## Every claim") :]


def arrays(path):
    stored = np.load(path)
    return dict(stored) if path.suffix == ".npz" else {"": stored}


def test_every_tensor_is_what_its_line_makes(folder):
    exec(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], {})
    made = sorted(path.name for path in folder.iterdir())
    assert made == sorted(path.name for path in FOLDER.glob("*.np?"))
    for name in made:
        new, kept = arrays(folder / name), arrays(FOLDER / name)
        assert new.keys() == kept.keys()
        for key, values in new.items():
            assert values.dtype == kept[key].dtype
            np.testing.assert_array_equal(values, kept[key])


def test_the_folder_is_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 200_000


def test_every_tensor_is_used():
    for path in FOLDER.glob("*.np?"):
        assert f"examples/tutorial/{path.name}" in PAGE


def test_every_claim_is_judged_in_the_text_and_in_the_table():
    numbers = [int(number) for number in re.findall(r"^\| (\d+) \|", TABLE, re.MULTILINE)]
    assert numbers == list(range(1, 24))
    text = PAGE[: PAGE.index("## Every claim")]
    assert {int(number) for number in re.findall(r"Claim (\d+)", text)} == set(numbers)


def test_the_numbers_of_the_worked_example():
    """Exactly, from the eight values."""
    values = [Fraction(value) for value in (1, 2, 3, 4, 9, 10, 11, 12)]
    mean = sum(values) / 8
    squares = sum((value - mean) ** 2 for value in values)
    assert (mean, squares) == (Fraction("6.5"), 138)
    assert squares / 8 == Fraction("17.25")
    assert f"{float(squares / 7):.6g}" == "19.7143"
    running_var = Fraction("0.9") + squares / 7 / 10
    assert f"{float(running_var):.6g}" == "2.87143"
    assert Fraction("0.9") + squares / 80 == Fraction("2.625")
    first = [float(value - mean) / (float(squares / 8) + 1e-5) ** 0.5 for value in values[:4]]
    assert " ".join(f"{value:.6f}" for value in first) in TABLE
    assert f"{-5.5 / (15.25 + 1e-5) ** 0.5:.6g}" == "-1.40841"
    for number in ("17.25", "19.7143", "2.87143", "2.625", "-1.40841"):
        assert number in PAGE


def test_two_equal_batches_leave_19_hundredths_of_the_mean():
    means = [Fraction(text) for text in ("-0.102", "1.234", "-0.567")]
    assert [float(mean / 10) for mean in means] == [-0.0102, 0.1234, -0.0567]
    after = " ".join(f"{float(mean * 19 / 100):.4f}" for mean in means)
    assert after == "-0.0194 0.2345 -0.1077"
    assert after in TABLE


@pytest.mark.parametrize(("momentum", "factor", "batches"), [(0.1, 0.229, 44), (0.01, 0.071, 459)])
def test_the_price_of_a_small_momentum(momentum, factor, batches):
    """By adding up weights, not by logarithms."""
    weights = [momentum * (1 - momentum) ** age for age in range(5000)]
    assert sum(weight**2 for weight in weights) ** 0.5 == pytest.approx(factor, abs=5e-4)
    assert (1 - momentum) ** batches <= 0.01 < (1 - momentum) ** (batches - 1)
    assert f"{factor}" in TABLE
    assert f"{batches}" in TABLE


def script(path):
    """A make.py as a module."""
    spec = importlib.util.spec_from_file_location("make", path)
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    return make


def test_the_faulty_checkpoint_is_made_by_its_script(repository, tmp_path):
    folder = repository / "examples" / "checkpoint"
    make = script(folder / "make.py")
    make.FOLDER = tmp_path
    make.main()
    made, kept = torch.load(tmp_path / "nan.pt"), torch.load(folder / "nan.pt")
    assert list(made) == list(kept)
    faults = [name for name, values in kept.items() if values.isnan().any()]
    assert faults == ["layer3.0.bn1.running_var"]
    for name in made:
        torch.testing.assert_close(made[name], kept[name], equal_nan=True)
    assert (folder / "nan.pt").stat().st_size < 20_000


def test_the_ported_network_is_made_by_its_script(repository, tmp_path):
    folder = repository / "examples" / "frameworks"
    make = script(folder / "make.py")
    make.FOLDER = tmp_path
    make.main()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["folded.onnx", "net.onnx", "net.pt", "x.npy"]
    for name in names:
        assert (folder / name).stat().st_size < 20_000
        made, kept = open_file(tmp_path / name).tensors, open_file(folder / name).tensors
        assert list(made) == list(kept)
        for key, tensor in made.items():
            np.testing.assert_allclose(tensor.read(), kept[key].read(), rtol=1e-4, atol=1e-6)


def test_the_debugging_stories_are_made_by_their_script(repository, tmp_path):
    folder = repository / "examples" / "debugging"
    make = script(folder / "make.py")
    make.FOLDER = tmp_path
    make.main()
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == sorted(path.name for path in folder.glob("*.np[yz]"))
    for name in made:
        mine, kept = np.load(tmp_path / name), np.load(folder / name)
        for key in kept.files if name.endswith("z") else [None]:
            np.testing.assert_allclose(
                mine if key is None else mine[key], kept if key is None else kept[key], rtol=1e-6
            )


def test_the_array_of_slurm_makes_each_part_once(repository, folder):
    """Its tasks, with the variables that Slurm sets; the array is that of its own first lines."""
    text = (repository / "examples/scale/array.sbatch").read_text("utf-8")
    settings = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", text, re.MULTILINE))
    least, last = map(int, settings["array"].split("-"))
    assert (
        text.index("#SBATCH") < text.index("\nset ") > text.rindex("#SBATCH")
    )  # Slurm stops there
    for i in range(3):
        np.save(f"{i}.npy", np.eye(4, 3, dtype=np.float32) * i)
    slurm = {"SLURM_ARRAY_TASK_MIN": least, "SLURM_ARRAY_TASK_COUNT": last - least + 1}

    def task(number):
        variables = slurm | {"SLURM_ARRAY_TASK_ID": number, "SLURM_ARRAY_TASK_STEP": 1}
        return subprocess.run(
            ["sh", repository / "examples/scale/array.sbatch", "*.npy", "parts"],
            env=environment() | {name: str(value) for name, value in variables.items()},
            check=False,
        ).returncode

    assert [task(number) for number in (least, 1, 2, last)] == [0, 0, 0, 0]
    made = {path.name: path.stat().st_mtime_ns for path in Path("parts").iterdir()}
    assert sorted(made) == ["0.npz", "1.npz", "2.npz"]
    assert task(1) == 0
    assert {path.name: path.stat().st_mtime_ns for path in Path("parts").iterdir()} == made
    np.save("1.npy", np.ones((5, 3), np.float32))
    assert task(1) == 2  # what a part holds is not what it would read now


SCALE = (Path(__file__).resolve().parents[1] / "examples/scale/README.md").read_text("utf-8")


def test_what_a_part_holds_of_1000_channels(folder):
    """Its size is the guide's, and the guide's sums are right."""
    for i in range(4):
        values = np.random.default_rng(i).normal(3, 2, (8, 1000, 4, 4))
        np.save(f"{i}.npy", values.astype(np.float32))
    assert main(["compute", "*.npy", "--shard", "0/1", "--save-stats", "p.npz", "--quiet"]) == 0
    with np.load("p.npz") as part:
        numbers = [name for name in part.files if name.startswith("training/")]
        assert sum(part[name].shape == (1000,) for name in numbers) == 21
    size = Path("p.npz").stat().st_size
    assert 0.9 * 110_000 < size < 1.1 * 110_000
    assert "A part has 21 numbers of 8 bytes for each channel" in SCALE
    own, seconds = 10_000 / 64, 10_000 / 64 * 1.5
    assert "156 or 157 files" in SCALE
    assert 156 < own < 157
    assert f"{seconds:.0f} s on one core" in SCALE
    assert round(63 * 0.110) == round(64 * 0.110) == 7


@pytest.mark.exhaustive
def test_torchrun_makes_the_statistics_of_one_process(folder):
    """The guide's line, where torchrun is that of this Python."""
    line = re.search(r"^torchrun (.*compute.*)$", SCALE, re.MULTILINE)[1]
    Path("shards").mkdir()
    for i in range(5):
        np.save(f"shards/{i}.npy", np.random.default_rng(i).normal(3, 2, (8, 3)))
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *shlex.split(line)],
        env=environment() | {"OMP_NUM_THREADS": "1"},
        check=True,
    )
    assert sorted(path.name for path in Path().iterdir()) == ["shards", "stats.npz"]
    x = np.concatenate([np.load(path) for path in sorted(Path("shards").iterdir())])
    stored = open_statistics("stats.npz").layers[0].seen[Propagation.TRAINING]
    np.testing.assert_allclose(stored.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(stored.var, x.var(0), rtol=1e-12)
