"""examples/ci and the hook of pre-commit: their formats are linted, their commands are run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml

from bncli.cli import main

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples" / "ci"
SCHEMAS = {"github-actions.yml": "vendor.github-workflows", "gitlab-ci.yml": "vendor.gitlab-ci"}


def lint(path: Path, schema: str) -> int:
    """check-jsonschema's exit code; its copies of the schemas are in the package."""
    return subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, path],
        capture_output=True,
        check=False,
    ).returncode


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_linter_finds_nothing(name, tmp_path):
    assert lint(EXAMPLES / name, SCHEMAS[name]) == 0
    bad = tmp_path / name
    bad.write_text(
        (EXAMPLES / name).read_text("utf-8").replace("steps:", "step:").replace("when", "whn")
    )
    assert lint(bad, SCHEMAS[name]) != 0  # and it would have


def commands(name: str, job: str = "checkpoints") -> list[str]:
    """What a workflow runs with bncli and its files; not how it installs it."""
    document = yaml.safe_load((EXAMPLES / name).read_text("utf-8"))
    if name.startswith("github"):
        steps = document["jobs"][job]["steps"]
        lines = [step["run"] for step in steps if "run" in step]
    else:
        lines = document["batchnorm"]["script"]
    install = [line for line in lines if "pip install" in line]
    assert len(install) == 1
    return [line for line in lines if line not in install]


@cache
def trained() -> dict[str, torch.Tensor]:
    """The state of three BatchNorm layers with real statistics."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(*(torch.nn.BatchNorm1d(4) for _ in range(3)))
    for _ in range(60):
        net(torch.randn(32, 4))
    return net.state_dict()


@pytest.fixture
def project(folder):
    """A project with healthy checkpoints, bncli on its path."""
    for name in ("a", "b/c"):
        path = folder / "models" / f"{name}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(trained(), path)
    (folder / "bin").mkdir()
    (folder / "bin/bncli").write_text(f'#!/bin/sh\nexec {sys.executable} -m bncli "$@"\n')
    (folder / "bin/bncli").chmod(0o755)
    return folder


def shell(line: str, project: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PATH": f"{project / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "GITHUB_STEP_SUMMARY": str(project / "summary.md"),
    }
    return subprocess.run(
        ["bash", "-e", "-c", line], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", SCHEMAS)
def test_its_commands_run(name, project):
    for line in commands(name):
        done = shell(line, project)
        assert (done.returncode, done.stderr) == (0, ""), line
    written = {path.name for path in project.iterdir()}
    text = (EXAMPLES / name).read_text("utf-8")
    promised = set(re.findall(r"\bbncli\.(?:sarif|md|xml|json|html)\b", text))
    assert promised
    assert promised <= written
    assert "<svg" in (project / "bncli.html").read_text("utf-8")
    assert text.count("bncli.html") >= 2  # it is written and uploaded
    if name.startswith("github"):
        assert (project / "summary.md").read_text("utf-8").startswith("## bncli inspect-checkpoint")


def test_a_fault_stops_the_workflow(project):
    state = torch.load(project / "models/a.pt")
    state["1.running_var"][0] = float("nan")
    torch.save(state, project / "models/a.pt")
    done = shell(commands("github-actions.yml")[0], project)
    assert done.returncode == 1
    assert done.stdout.startswith("::error file=models/a.pt,title=BN201 1::")


def test_the_job_on_a_fine_tuning_fails_where_a_frozen_layer_moved(project):
    first = {
        f"{'head' if name[0] == '2' else 'backbone'}.{name}": v for name, v in trained().items()
    }
    more = {
        "num_batches_tracked": 40,
        **dict.fromkeys(("weight", "bias", "running_mean", "running_var"), 0.1),
    }
    second = {
        name: values + more[name.split(".")[-1]] if name.startswith("head") else values
        for name, values in first.items()
    }
    torch.save(first, project / "models/pretrained.pt")
    torch.save(second, project / "models/finetuned.pt")
    (line,) = commands("github-actions.yml", "fine-tuning")
    assert (shell(line, project).returncode, shell(line, project).stderr) == (0, "")
    second["backbone.1.running_mean"] = second["backbone.1.running_mean"] + 0.1
    torch.save(second, project / "models/finetuned.pt")
    done = shell(line, project)
    assert done.returncode == 1
    assert done.stdout.startswith("::error file=models/finetuned.pt,title=BN620 backbone.1::")


@pytest.mark.parametrize(
    ("prepare", "flags", "code", "said"),
    [
        (None, (), 0, "pass: models/a.pt"),
        (None, ("--expect-layers", "4"), 1, "stop: models/a.pt has a new fault, see bncli.json"),
        (b"no checkpoint", (), 2, "stop: models/a.pt could not be judged"),
        ({"weight": torch.ones(3)}, (), 3, "stop: models/a.pt has no BatchNorm layer"),
    ],
)
def test_the_gate(project, prepare, flags, code, said):
    if isinstance(prepare, bytes):
        (project / "models/a.pt").write_bytes(prepare)
    elif prepare:
        torch.save(prepare, project / "models/a.pt")
    done = shell(f"{EXAMPLES / 'gate.sh'} models/a.pt {' '.join(flags)}", project)
    assert (done.returncode, done.stdout) == (code, f"{said}\n")
    if code == 1:
        assert json.loads((project / "bncli.json").read_text("utf-8"))["exit_code"] == 1


def test_the_settings_of_the_guide_are_taken(project):
    """Each of them: two rules ignored, warnings fail, 53 layers, and a baseline in its place."""
    guide = (EXAMPLES / "README.md").read_text("utf-8")
    (project / "pyproject.toml").write_text(re.search(r"```toml\n(.*?)```", guide, re.DOTALL)[1])
    (project / "ci").mkdir()
    assert shell("bncli inspect-checkpoint models/a.pt -q", project).returncode == 2  # no baseline
    done = shell("bncli inspect-checkpoint models/a.pt -q --update-baseline", project)
    assert (done.returncode, done.stderr) == (0, "")
    known = json.loads((project / "ci/bncli-baseline.json").read_text("utf-8"))["findings"]
    assert [entry["code"] for entry in known] == ["BN607"]
    assert "53" in json.dumps(known[0]["extent"])


@pytest.mark.skipif(not shutil.which("sh"), reason="there is no shell")
def test_the_gate_is_a_shell_script():
    assert subprocess.run(["sh", "-n", EXAMPLES / "gate.sh"], check=False).returncode == 0
    assert os.access(EXAMPLES / "gate.sh", os.X_OK)


def test_the_hook_of_pre_commit(project):
    """Its format (https://pre-commit.com/#new-hooks), its pattern and its command."""
    (hook,) = yaml.safe_load((REPOSITORY / ".pre-commit-hooks.yaml").read_text("utf-8"))
    assert {"id", "name", "entry", "language"} <= set(hook)
    assert set(hook) <= {
        "id", "name", "description", "entry", "language", "files", "exclude", "types", "args",
        "require_serial", "pass_filenames", "stages", "minimum_pre_commit_version",
        "additional_dependencies",
    }  # fmt: skip
    assert hook["language"] == "python"
    pattern = re.compile(hook["files"])
    taken = ["net.pt", "a/b.pth", "x.safetensors", "last.ckpt", "net.onnx", "net.pt2"]
    taken += ["m.keras", "w.weights.h5", "m.pdparams", "m.msgpack"]
    others = ["net.py", "pt", "data.h5", "a.pt.md", "x.npz", "data.hdf5", "a.ptl", "net.onnx.data"]
    assert [name for name in (*taken, *others) if pattern.search(name)] == taken
    program, *arguments = hook["entry"].split()
    assert program == "bncli"
    assert main([*arguments, "models/a.pt", "models/b/c.pt", "-q"]) == 0
