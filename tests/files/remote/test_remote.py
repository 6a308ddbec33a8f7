"""Files elsewhere, as the commands read them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save as save_safetensors

from bncli.commands import COMMANDS
from bncli.renderers import Format
from tests.files.remote.web_server import web_server


def npy(array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def torch_zip(value) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).normal(1, 2, (6, 3, 50, 41)).astype(np.float32)


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))
    net(torch.randn(4, 3, 9, 9))
    return net.state_dict()


def same_but_path(one, other):
    """Whether two reports differ in the path alone."""
    (a, b) = (each.report for each in (one, other))
    for report in (a, b):
        for key in ("input", "path"):
            report["facts"].pop(key, None)
    return a["tables"] == b["tables"] and a["facts"] == b["facts"]


def test_a_tensor_is_that_of_the_local_file(run, save, memory, x):
    memory.pipe("/run/x.npy", npy(x))
    local = run("compute", save("x.npy", x), "-f", "json")
    elsewhere = run("compute", "memory://run/x.npy", "-f", "json")
    assert elsewhere.code == 0, elsewhere.stderr
    assert elsewhere.report["facts"]["input"] == "memory://run/x.npy"
    assert same_but_path(local, elsewhere)


def test_checkpoints_by_a_pattern(run, memory, state):
    memory.pipe("/run/a.pt", torch_zip(state))
    memory.pipe("/run/b.safetensors", save_safetensors(state))
    memory.pipe("/run/deeper/c.pt", torch_zip(state))
    result = run("inspect-checkpoint", "memory://run/*", "-f", "json")
    assert result.code == 0, result.stderr
    paths = [row["path"] for row in result.report["tables"]["layers"]]
    assert paths == ["memory://run/a.pt", "memory://run/b.safetensors"]
    result = run("inspect-checkpoint", "memory://run/**/*.pt::1", "-f", "json")
    assert [row["name"] for row in result.report["tables"]["layers"]] == ["1", "1"]
    code, _, err = run("inspect-checkpoint", "memory://run/**.pt")
    assert (code, "no pattern" in err) == (2, True)
    code, out, err = run("inspect-checkpoint", "memory://run/*.bin")
    assert (code, out) == (2, "")
    assert err == "bncli: memory://run/*.bin: no file fits this pattern.\n"


def test_a_query_is_no_pattern_and_never_printed(run, state):
    with web_server(files={"/run/net.pt": torch_zip(state)}) as server:
        url = f"{server.url.replace('//', '//me:secret@')}/run/net.pt?sig=secret*"
        for form in [each.value for each in Format]:
            result = run("inspect-checkpoint", url, "-f", form, "-v")
            assert (result.code, result.stderr) == (0, "")
            assert "secret" not in result.stdout
        assert {each.path for each in server.asked} == {"/run/net.pt?sig=secret*"}
        assert all("Authorization" in each.headers for each in server.asked)
        server.files.clear()
        code, out, err = run("inspect-checkpoint", url, "-v")
        assert (code, out) == (2, "")
        assert "404 Not Found" in err
        assert "secret" not in err


def test_a_changed_file_is_refused(run, state):
    with web_server(files={"/net.pt": torch_zip(state)}) as server:

        def change(_):
            server.etag = f'"{len(server.asked)}"'

        server.on_request = change
        code, out, err = run("inspect-checkpoint", f"{server.url}/net.pt")
    assert (code, out) == (2, "")
    assert "it changed while bncli was reading it" in err


def test_without_ranges_it_is_downloaded(run, x, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    big = np.tile(x, (9, 1, 9, 1))
    with web_server(files={"/x.npy": npy(big)}, ranges=False) as server:
        url = f"{server.url}/x.npy"
        code, out, err = run("compute", url)
        assert (code, out) == (2, "")
        assert "--download" in err
        assert server.bodies < len(npy(big))
        result = run("compute", url, "--download", "-f", "json")
        assert result.code == 0, result.stderr
    mean = big.astype(np.float64).mean(axis=(0, 2, 3))
    np.testing.assert_allclose([row["mean"] for row in result.report["tables"]["channels"]], mean)
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_elsewhere(run, save, x, memory):
    save("x.npy", x)
    for flags in (["-o", "memory://r.json"], ["--save-output", "memory://y.npy"]):
        code, _, err = run("compute", "x.npy", *flags)
        assert code == 2
        assert "bncli writes local files only" in err
    assert not memory.store


@pytest.mark.parametrize("name", [name for name, entry in COMMANDS.items() if entry.reads])
def test_every_command_that_reads_takes_download(run, name):
    assert "--download" in run(name.replace("_", "-"), "--help").stdout


def test_a_local_call_imports_no_driver(run_process, save, x):
    probe = (
        "import sys; from bncli.cli import main; main(sys.argv[1:]);"
        "print([n for n in sys.modules if 'fsspec' in n or 'remote' in n], file=sys.stderr)"
    )
    result = run_process("compute", save("x.npy", x), "-q", python=["-c", probe])
    assert result.stderr.strip() == "[]"
    assert Path("x.npy").exists()
