"""A backend that has `run` alone works, and its faults are found: a second one, in NumPy.

The tolerances take its word for the dtype of its sums, and allow for any order of them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from bncli.backends.arithmetic import walk_of
from bncli.backends.interface import (
    Averages,
    Backend,
    ChoosesPath,
    GivesSteps,
    IsRepeated,
    RunsNorms,
    StepsModule,
)
from bncli.model import BatchNormSettings
from bncli.verify.batch_norm_pass import Path
from bncli.verify.comparison import compare_channels, compare_pass
from tests.backends import plain
from tests.backends.plain import BIASED, EPS_OUTSIDE, PlainBackend
from tests.configurations import Configuration, configuration
from tests.conftest import REPOSITORY

PLAIN = PlainBackend()


def test_it_is_a_backend_and_nothing_more():
    assert isinstance(PLAIN, Backend)
    for more in (Averages, ChoosesPath, GivesSteps, IsRepeated, RunsNorms, StepsModule):
        assert not isinstance(PLAIN, more)


def test_no_false_alarm():
    for seed in range(3000, 3120):
        config = configuration(seed, largest=20_000)
        compared, _ = compare_pass(config.done(), config.x, PLAIN, seed=seed)
        assert compared
        assert [item for item in compared if not item.passed] == [], seed


def test_sums_that_round_the_same_way_every_time_are_no_fault():
    """Row after row of one value: n additions lose up to n roundings, and not about sqrt(n)."""
    settings = BatchNormSettings(affine=False, track_running_stats=False)
    astray = []
    for value in (0.1, 1 / 3, 1000.7):
        x = np.full((100_000, 4), value, np.float32)
        x[::2] += np.float32(value / 2)
        done = Configuration(x, "float32", 1, settings, None, None, None).done()
        compared, run = compare_pass(done, x, PLAIN)
        assert [item for item in compared if not item.passed] == []
        walk = walk_of("float32", len(x)) * np.abs(done.stats.mean)
        astray.append(float((np.abs(run.quantities["mean"] - done.stats.mean) / walk).max()))
    assert max(astray) > 8  # by far more than a random walk explains


def test_its_quantities_are_measured_channel_by_channel():
    config = configuration(3000)
    found = compare_channels(config.done(), config.x, PLAIN, seed=0, tolerance=None, path=Path())
    assert found.run.threads == 1
    for item in found.quantities:
        if item.whole.quantity != "num_batches_tracked":
            assert len(item.channels) == config.x.shape[config.channel_axis]


@pytest.mark.parametrize("missing", ["grad_input", "num_batches_tracked", "mean", "running_var"])
def test_what_it_does_not_give_is_not_compared(missing):
    class Less(PlainBackend):
        def run(self, call):
            run = super().run(call)
            return type(run)(
                {name: values for name, values in run.quantities.items() if name != missing},
                run.arithmetic,
            )

    config = next(
        found
        for found in map(configuration, range(3000, 3100))
        if found.settings.track_running_stats and found.settings.training
    )
    compared, _ = compare_pass(config.done(), config.x, Less())
    whole, _ = compare_pass(config.done(), config.x, PLAIN)
    assert [item for item in whole if item.quantity != missing] == compared
    assert len(whole) == len(compared) + 1


# ---------------------------------------------------------------------------- as a user has it

TABLE = ("--width", "250", "-f", "table")
COMMANDS = {
    "compute": ("compute", "x.npy", "--against", "plain"),
    "rows": ("compute", "rows.npy", "--against", "plain"),
    "diff": ("diff", "x.npy", "--against", "plain"),
    "table": ("diff", "x.npy", "--against", "plain", *TABLE),
    "trace": ("trace", "x.npy", "--backward", "--against", "plain"),
    "trace table": (
        "trace",
        "x.npy",
        "--backward",
        "--against",
        "plain",
        "--width",
        "250",
        "-f",
        "table",
    ),
    "compare-norms": ("compare-norms", "x.npy", "--against", "plain"),
    "simulate-ema": ("simulate-ema", "x.npy", "x.npy", "--against", "plain"),
    "cuda": ("diff", "x.npy", "--against", "plain", "--device", "cuda"),
    "threads": ("diff", "x.npy", "--against", "plain", "--torch-threads", "2"),
    "eps": ("diff", "x.npy", "--against", "plain_eps", "--eps", "1e-3"),
    "biased": ("diff", "x.npy", "--against", "plain_biased"),
    "biased compute": ("compute", "x.npy", "--against", "plain_biased"),
    "help": ("compute", "--help"),
}

CHILD = """
import contextlib, io, json, sys
from bncli.cli import main
found = {}
for name, argv in json.loads(sys.argv[1]).items():
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(argv)
    found[name] = [int(code), out.getvalue(), err.getvalue()]
found["torch"] = "torch" in sys.modules
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the commands say in a copy of the package, where a file and a line are added."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(REPOSITORY / "bncli", folder / "bncli")
    backends = folder / "bncli" / "backends"
    shutil.copy(plain.__file__, backends / "plain.py")
    listed = 'TORCH = "torch"\n    PLAIN = "plain"'
    for name, fault in (("plain_eps", EPS_OUTSIDE), ("plain_biased", BIASED)):
        (backends / f"{name}.py").write_text(
            "from bncli.backends.plain import PlainBackend\n"
            f"BACKEND = PlainBackend({name!r}, {fault!r})\n"
        )
        listed += f"\n    {name.upper()} = {name!r}"
    registry = backends / "__init__.py"
    registry.write_text(registry.read_text().replace('TORCH = "torch"', listed))
    rng = np.random.default_rng(0)
    np.save(folder / "x.npy", rng.normal(1, 0.3, (8, 3, 5)).astype(np.float32))
    np.save(folder / "rows.npy", rng.normal(1, 2, (16, 3)))
    argv = {
        name: [*given, *([] if {"-f", "--help"} & {*given} else ["-f", "json"])]
        for name, given in COMMANDS.items()
    }
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(argv)],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "", "COLUMNS": "200"},
        capture_output=True,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ["compute", "rows", "diff", "trace"])
def test_run_alone_is_enough(found, name):
    code, stdout, stderr = found[name]
    assert (code, stderr) == (0, ""), stdout
    report = json.loads(stdout)
    assert report["facts"]["backend"] == "plain"
    assert report["facts"]["backend_version"] == np.__version__
    assert {row["quantity"] for row in report["tables"]["differences"]} >= {"output", "grad_input"}
    assert all(row["passed"] for row in report["tables"]["differences"])
    assert f"plain {np.__version__} agrees in " in report["verdict"]


def test_torch_was_not_needed(found):
    assert found["torch"] is False


@pytest.mark.parametrize("name", ["table", "trace table"])
def test_nothing_speaks_of_pytorch_where_it_means_the_backend(found, name):
    code, stdout, _ = found[name]
    assert code == 0
    assert "plain" in stdout
    assert "torch" not in stdout.lower()


def test_diff_repeats_pytorch_alone(found):
    report = json.loads(found["diff"][1])
    assert {row["torch_ulp"] is not None for row in report["tables"]["budget"]} == {True}
    assert "repeated_ulp" not in {key for row in report["tables"]["budget"] for key in row}
    assert report["facts"]["device"] is None


def test_a_trace_has_the_values_that_the_pass_gives(found):
    steps = json.loads(found["trace"][1])["tables"]["steps"]
    beside = {row["quantity"]: row["torch"] for row in steps}
    assert beside["mean"] is not None
    assert beside["grad_bias"] is not None
    assert beside["sum_g_x_hat"] is None


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("compare-norms", "--against plain: this backend has only BatchNorm"),
        ("simulate-ema", "--against plain: it has no module that can be stepped through batches"),
        ("cuda", "--device cuda: the backend plain has no such choice; leave it out."),
        ("threads", "--torch-threads 2: the backend plain has no such choice; leave it out."),
    ],
)
def test_what_it_lacks_is_said_in_a_sentence(found, name, sentence):
    code, stdout, stderr = found[name]
    assert (code, stdout) == (2, "")
    assert sentence in stderr
    assert stderr.count("\n") == 1


def test_eps_outside_the_root_is_found_and_named(found):
    code, stdout, _ = found["eps"]
    assert code == 1
    messages = {item["subject"]: item["detail"] for item in json.loads(stdout)["findings"]}
    assert "plain_eps's output was computed in" in messages["output in training mode"]
    assert "eps outside the root" in messages["output in training mode"]
    assert "invstd in training mode" in messages


@pytest.mark.parametrize("name", ["biased", "biased compute"])
def test_a_biased_running_var_is_found_and_named(found, name):
    code, stdout, _ = found[name]
    assert code == 1
    (finding,) = [item for item in json.loads(stdout)["findings"] if item["code"] == "BN901"]
    assert finding["subject"].startswith("running_var")


def test_it_is_offered(found):
    assert "plain|" in found["help"][1] or "|plain" in found["help"][1]
