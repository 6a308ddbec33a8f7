"""Files elsewhere, as the commands read them."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save as save_safetensors

from bncli.commands import COMMANDS
from bncli.renderers import Format
from tests.files.remote.hollow_files import WRITERS, layers, write_onnx
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
    assert (code, "does not take this pattern" in err) == (2, True)
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


@pytest.mark.parametrize(
    "flags",
    [
        ("--save-stats", "made.npz"),
        ("--save-output", "made.npy"),
        ("--shard", "0/1", "--save-stats", "new.npz"),
    ],
)
def test_nothing_is_made_of_two_versions_of_a_file(run, folder, memory, x, monkeypatch, flags):
    memory.pipe("/x.npy", npy(x))
    plain = type(memory).cat_file

    def rewritten(self, *args, **kwargs):
        data = plain(self, *args, **kwargs)
        memory.pipe("/x.npy", npy(x + 9))
        return data

    monkeypatch.setattr(type(memory), "cat_file", rewritten)  # each thread has an instance
    for name in ("made.npz", "made.npy"):
        Path(name).write_bytes(b"before")
    before = sorted(path.name for path in Path().iterdir())
    code, out, err = run("compute", "memory://x.npy", *flags)
    assert (code, out) == (2, "")
    assert "memory://x.npy: it changed while bncli was reading it" in err
    assert sorted(path.name for path in Path().iterdir()) == before
    assert all(Path(name).read_bytes() == b"before" for name in ("made.npz", "made.npy"))


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


@pytest.fixture
def shards(tmp_path):
    """Three shards of one model and their index, as files of a server."""
    chance = torch.Generator().manual_seed(0)
    state = {}
    for i in range(3):
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            state[f"l{i}.bn.{leaf}"] = torch.rand(8, generator=chance)
    names = sorted(state)  # of a layer, some lie in one shard and some in the next
    files, index = {}, {}
    for k in range(3):
        name = f"model-{k + 1:05d}-of-00003.safetensors"
        part = names[5 * k :] if k == 2 else names[5 * k : 5 * k + 5]
        files[name] = save_safetensors({each: state[each] for each in part})
        index |= dict.fromkeys(part, name)
    files["model.safetensors.index.json"] = json.dumps({"weight_map": index}).encode()
    return files


@pytest.mark.parametrize(
    ("given", "indexed"),
    [
        ("model.safetensors.index.json", True),
        ("model-00002-of-00003.safetensors", True),
        ("model-00002-of-00003.safetensors", False),
    ],
)
def test_a_model_in_shards(run, memory, shards, given, indexed):
    if not indexed:
        del shards["model.safetensors.index.json"]
    for name, content in shards.items():
        memory.pipe(f"/net/{name}", content)
    with web_server(files={f"/net/{name}": content for name, content in shards.items()}) as server:
        places = [f"{server.url}/net/{given}?token=1", f"memory://net/{given}", "memory://net/"]
        for place in places:
            result = run("inspect-checkpoint", place, "-f", "json")
            assert result.code == 0, result.stderr
            assert result.report["facts"]["layers"] == 3
            assert result.report["facts"]["shards"] == 3
        assert {each.path.partition("?")[2] for each in server.asked} == {"token=1"}
        del server.files["/net/model-00003-of-00003.safetensors"]
        code, _, err = run("inspect-checkpoint", places[0])
        assert code == 2
        assert "model-00003-of-00003.safetensors is missing" in err


def test_a_folder_of_a_store_that_has_several_models(run, memory, state):
    for name in ("a.pt", "b.pt"):
        memory.pipe(f"/run/{name}", torch_zip(state))
    code, _, err = run("inspect-checkpoint", "memory://run")
    assert (code, "a.pt, b.pt" in err) == (2, True)


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


@pytest.mark.parametrize("name", [*WRITERS, "outside.onnx"])
def test_little_is_read_of_a_large_checkpoint(run, tmp_path, name):
    """Of 2.3 GB at most 2 %, by 5 requests and one for each run of BatchNorm tensors."""
    count = 58
    tensors = layers(count)
    if name == "outside.onnx":
        write_onnx(tmp_path / name, tensors, "outside.data")
    else:
        WRITERS[name](tmp_path / name, tensors)
    files = {f"/{path.name}": path for path in tmp_path.iterdir()}
    size = sum(path.stat().st_size for path in files.values())
    assert size > 2_300_000_000
    with web_server(files=files) as server:
        result = run("inspect-checkpoint", f"{server.url}/{name}", "-f", "json")
        assert result.code == 0, result.stderr
        assert server.bodies <= 0.02 * size
        assert len(server.asked) <= count + 5
    rows = {row["name"]: row for row in result.report["tables"]["layers"]}
    assert len(rows) == count
    for i in range(count):
        row = rows[f"l{i}.bn"]
        for leaf, key in (("running_mean", "mean"), ("running_var", "var")):
            values = tensors[f"l{i}.bn.{leaf}"]
            assert (row[f"{key}_min"], row[f"{key}_max"]) == (values.min(), values.max())


@pytest.mark.parametrize("name", ["net.safetensors", "net.pt"])
def test_tensors_that_are_not_wanted_cost_no_request(run, tmp_path, name):
    WRITERS[name](tmp_path / name, layers(5, large=10))
    with web_server(files={"/net": tmp_path / name}) as server:
        assert run("inspect-checkpoint", f"{server.url}/net", "-q").code == 0
        assert len(server.asked) <= 5 + 5


def test_one_layer_is_a_few_requests(run, save, x, tmp_path):
    save("x.npy", np.ones((4, 512), np.float32))
    WRITERS["net.pt"](tmp_path / "net.pt", layers(20))
    with web_server(files={"/net.pt": tmp_path / "net.pt"}) as server:
        state = f"{server.url}/net.pt::l7.bn"
        assert run("compute", "x.npy", "--eval", "--state", state, "-q").code == 0
        assert len(server.asked) <= 4


def test_two_checkpoints_are_compared(run, state, tmp_path):
    after = {name: value.clone() for name, value in state.items()}
    after["1.running_mean"] += 1
    files = {"/a.pt": torch_zip(state), "/b.pt": torch_zip(after)}
    for name, content in files.items():
        (tmp_path / name[1:]).write_bytes(content)
    with web_server(files=files) as server:
        places = [f"{server.url}{name}" for name in files]
        found = run("compare-checkpoints", *places, "-f", "json")
        same = run("compare-checkpoints", places[0], places[0], "-f", "json")
    local = run("compare-checkpoints", tmp_path / "a.pt", tmp_path / "b.pt", "-f", "json")
    assert found.code == local.code
    assert found.report["tables"] == local.report["tables"]
    assert same.code == 2


def test_other_containers(run, memory, state, x):
    memory.pipe("/net.pt.gz", gzip.compress(torch_zip(state)))
    assert run("inspect-checkpoint", "memory://net.pt.gz", "-q").code == 0
    memory.pipe("/x.csv", b"1,2\n3,4\n5,6\n")
    memory.pipe("/x.json", b"[[1,2],[3,4],[5,6]]")
    stream = io.BytesIO()
    np.savez_compressed(stream, x=x, y=x)
    memory.pipe("/x.npz", stream.getvalue())
    for spec in ("memory://x.csv", "memory://x.json", "memory://x.npz::x"):
        assert run("compute", spec, "-q").code == 0
    keras = pytest.importorskip("h5py")
    stream = io.BytesIO()
    with keras.File(stream, "w") as file:
        for name in ("gamma", "beta", "moving_mean", "moving_variance"):
            file[f"model_weights/bn/bn/{name}:0"] = np.full(4, 0.5, np.float32)
    memory.pipe("/net.h5", stream.getvalue())
    result = run("inspect-checkpoint", "memory://net.h5", "-f", "json")
    assert (result.code, result.report["facts"]["layers"]) == (0, 1)


def test_a_checkpoint_elsewhere_is_renewed_after_a_download(run, repository, memory, tmp_path):
    example = repository / "examples" / "diagnose"
    for name in ("unet.pth", "stats.npz"):
        memory.pipe(f"/{name}", (example / name).read_bytes())
    call = ["recalibrate", "--stats", "memory://stats.npz", "--checkpoint", "memory://unet.pth",
            "--max-error", "1"]  # fmt: skip
    assert run(*call, "-q").code == 0
    target = tmp_path / "new.pth"
    code, _, err = run(*call, "--save-checkpoint", target)
    assert (code, "--download" in err, target.exists()) == (2, True, False)
    result = run(*call, "--save-checkpoint", target, "--download", "-f", "json")
    assert result.code == 0, result.stderr
    local = tmp_path / "local.pth"
    call = [str(example / word[9:]) if word.startswith("memory://") else word for word in call]
    assert run(*call, "--save-checkpoint", local, "-q").code == 0
    assert target.read_bytes() == local.read_bytes()
    assert target.stat().st_mode == local.stat().st_mode


def test_a_baseline_knows_a_file_elsewhere(run, repository, memory, folder):
    memory.pipe("/nan.pt", (repository / "examples/checkpoint/nan.pt").read_bytes())
    call = ["inspect-checkpoint", "memory://nan.pt", "--baseline", "b.json"]
    assert run(*call, "--update-baseline", "-q").code == 0
    entries = json.loads((folder / "b.json").read_text("utf-8"))["findings"]
    assert {entry["file"] for entry in entries} == {"memory://nan.pt"}
    assert run(*call, "-q").code == 0
    code, _, err = run("inspect-checkpoint", "memory://nan.pt", "--baseline", "memory://b.json")
    assert (code, "a baseline is a file of this machine" in err) == (2, True)


SECRET = "sig=secret&user=secret"


@pytest.mark.parametrize(
    "call",
    [
        ("compute", "X"),
        ("compute", "X", "X2"),
        ("compute", "X", "--eval", "--state", "CK::1"),
        ("compute", "X", "--bogus"),
        ("compute", "X", "--channel", "X"),
        ("compute", "CK"),
        ("compute", "CK::none"),
        ("trace", "X", "--channel", "0"),
        ("diff", "X", "X2"),
        ("identify", "X", "X2"),
        ("compare-norms", "X"),
        ("simulate-ema", "X", "X2"),
        ("inspect-checkpoint", "CK", "CK2"),
        ("inspect-checkpoint", "CK", "X", "NONE"),
        ("inspect-checkpoint", "CK::no"),
        ("compare-checkpoints", "CK", "CK2"),
        ("compare-checkpoints", "CK", "CK2", "CK3"),
        ("compare-checkpoints", "CK::1", "CK2"),
        ("compare-checkpoints", "CK"),
        ("diagnose", "CK"),
        ("diagnose", "NONE"),
        ("recalibrate", "--stats", "X", "--checkpoint", "CK"),
        ("CK",),
        ("inspect-checkpoint", "CK", "-o", "CK"),
        ("inspect-checkpoint", "CK", "--baseline", "CK"),
    ],
    ids=" ".join,
)
def test_no_call_prints_a_secret(run, folder, state, x, call):
    other = {name: value.clone() for name, value in state.items()}
    other["1.running_mean"] += 1
    files = {"/x.npy": npy(x[:4, :, 0, 0]), "/x2.npy": npy(x[:4, :, 1, 1] * 3)}
    files |= {f"/ck{n}.pt": torch_zip(other if n else state) for n in ("", 2, 3)}
    with web_server(files=files) as server:
        base = server.url.replace("//", "//me:secret@")
        urls = {"X": "x.npy", "X2": "x2.npy", "CK": "ck.pt", "CK2": "ck2.pt", "CK3": "ck3.pt"}
        urls["NONE"] = "none.pt"

        def typed(word):
            key, mark, name = word.partition("::")
            return f"{base}/{urls[key]}?{SECRET}{mark}{name}" if key in urls else word

        words = [typed(word) for word in call]
        for form in ("table", "json", "sarif"):
            code, out, err = run(*words, "-f", form, "-v", "-o", "r.md")
            assert code in {0, 1, 2}, err
            assert "secret" not in out + err
        for path in folder.iterdir():
            assert "secret" not in path.read_text("utf-8")
