"""Bytes that are not what was written are found where they are read, and nowhere else."""

import io
import json
import random
import warnings
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bncli.commands import COMMANDS
from bncli.errors import BncliError, CorruptFileError
from bncli.files import file_bytes
from bncli.files.file_bytes import FileBytes, announce
from bncli.files.reading import reading
from bncli.loaders import open_file, open_tensor
from bncli.moments import channel_stats
from bncli.paths import as_path
from tests.files.remote.web_server import web_server
from tests.loaders.files import Net, saved, scripted
from tests.loaders.test_torch_places import deflated

CHANNELS = 300


def state():
    """A layer of distinct values, after which a file can be searched."""
    bn = nn.BatchNorm1d(CHANNELS)
    generator = torch.Generator().manual_seed(0)
    bn.weight.data.uniform_(0.5, 1.5, generator=generator)
    bn.running_mean.normal_(generator=generator)
    bn.running_var.uniform_(0.5, 1.5, generator=generator)
    bn.num_batches_tracked += 1000
    return {f"bn.{key}": value for key, value in bn.state_dict().items()}


def archive(compression, **arrays):
    out = io.BytesIO()
    (np.savez if compression == zipfile.ZIP_STORED else np.savez_compressed)(out, **arrays)
    return out.getvalue()


def damaged(data, values, at=17, places=1):
    """The data with a bit of some of the values turned over; they stay finite."""
    raw = values.numpy().tobytes() if isinstance(values, torch.Tensor) else values.tobytes()
    begin = data.index(raw[:400])
    out = bytearray(data)
    for i in range(places):
        out[begin + 4 * (at + i)] ^= 1
    return bytes(out)


def damaged_inside(data, name):
    """A deflated archive with a member whose bytes inflate to other ones of the same number."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for item in old.infolist():
            new.writestr(item.filename, old.read(item), zipfile.ZIP_DEFLATED)
        crc = new.getinfo(name).CRC
    data = out.getvalue()
    assert data.count(crc.to_bytes(4, "little")) == 2  # in the local header and the directory
    return data.replace(crc.to_bytes(4, "little"), (crc ^ 1).to_bytes(4, "little"))


def arrays():
    return {key: value.numpy() for key, value in state().items()}


def files():
    """Whole and damaged files by kind; bn.running_var is what is damaged, in none of its NaN."""
    var, plain = state()["bn.running_var"], saved(state())
    npz = archive(zipfile.ZIP_STORED, **arrays())
    packed = archive(zipfile.ZIP_DEFLATED, **arrays())
    script = scripted(Net().eval())
    return {
        "torch-zip": (plain, damaged(plain, var)),
        "deflated": (deflated(plain), damaged_inside(plain, "archive/data/3")),
        "npz": (npz, damaged(npz, var)),
        "npz-compressed": (packed, damaged_inside(packed, "bn.running_var.npy")),
        "torchscript": (script, damaged(script, Net().eval().bn.running_var)),
    }


KINDS = ["torch-zip", "deflated", "npz", "npz-compressed"]


@pytest.fixture(params=KINDS)
def pair(request, folder):
    """The paths of a whole file and of a damaged one."""
    whole, bad = files()[request.param]
    Path("whole").write_bytes(whole)
    Path("bad").write_bytes(bad)
    return "whole", "bad"


def test_the_damaged_tensor_is_refused_and_no_other(pair):
    good, bad = open_file(pair[0]).tensors, open_file(pair[1]).tensors
    assert set(good) == set(bad)
    for name in good:
        if name == "bn.running_var":
            with pytest.raises(CorruptFileError, match="does not match its checksum"):
                bad[name].read()
        else:
            np.testing.assert_array_equal(good[name].read(), bad[name].read())


def test_without_checksums_it_is_read_as_it_is(pair):
    with reading(checksum=False):
        ref = open_file(pair[1]).tensors["bn.running_var"]
    assert ref.read().shape == (CHANNELS,)  # later, and without the call around it


def test_inspect_checkpoint(run, pair):
    result = run("inspect-checkpoint", pair[1])
    assert tuple(result)[:2] == (2, "")
    assert result.stderr.count("\n") == 1
    assert "checksum" in result.stderr
    assert run("inspect-checkpoint", pair[0]).code == 0
    assert run("inspect-checkpoint", pair[1], "--no-checksum").code == 0
    several = run("inspect-checkpoint", *pair, "-f", "json")
    assert several.code == 2
    assert [item["path"] for item in several.report["unread"]] == ["bad"]
    layers = several.report["tables"]["layers"]
    assert [row["path"] for row in layers if row["name"] is not None] == ["whole"]


def test_a_layer_that_is_chosen_beside_a_damaged_one(run, folder):
    other = {key.replace("bn", "other"): value + 1 for key, value in state().items()}
    data = saved(state() | other)
    Path("x").write_bytes(damaged(data, state()["bn.running_var"]))
    assert run("inspect-checkpoint", "x").code == 2
    np.testing.assert_array_equal(
        open_tensor("x::other.running_var").read(), other["other.running_var"]
    )


CALLS = {
    "compute": ("x",),
    "trace": ("x", "--channel=0"),
    "simulate-ema": ("x", "--batch-size=2"),
    "diff": ("x", "y.npy"),
    "identify": ("x", "y.npy"),
    "compare-norms": ("x",),
}
DAMAGED = [
    *((name, *call) for name, call in CALLS.items()),
    ("compute", "y.npy", "--weight=w"),
    ("compute", "y.npy", "--state=bad"),
    ("simulate-ema", "x", "--batch-axis=0"),
    ("simulate-ema", "x", "--batch-size=2", "--shuffle"),
    ("simulate-ema", "y.npy", "--running-mean=w", "--running-var=w"),
    ("simulate-ema", "table.npz"),
    ("diff", "x", "--state=whole"),
    ("diff", "bad", "whole"),
    ("inspect-checkpoint", "bad"),
    ("compare-checkpoints", "whole", "bad"),
    ("compare-checkpoints", "whole", "--with=bad"),
    ("capture", "torch.nn:BatchNorm1d", "--arg=num_features=3", "--data=x"),
    ("capture", "torch.nn:BatchNorm1d", "--arg=num_features=3", "--data=y.npy", "--checkpoint=bad"),
    ("diagnose", "torch.nn:BatchNorm1d", "--arg=num_features=3", "--data=x"),
    ("recalibrate", "torch.nn:BatchNorm1d", "--arg=num_features=3", "--data=x", "--max-error=1"),
]


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("call", DAMAGED, ids=" ".join)
def test_every_command(run, folder, call, compress):
    """Each reads x, w or bad, which are damaged; and can be told to take them as they are."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 3, 6)).astype(np.float32)
    np.save("y.npy", x)
    weight = rng.uniform(0.5, 1.5, 3).astype(np.float32)
    table = {"batch": [0, 1], "channel": [0, 0], "mean": [0.25, 0.5], "var": [1, 2.0]}
    table = {key: np.array(value) for key, value in table.items()} | {"count": np.array([9, 9])}
    layer = {key: value[:3].clone() for key, value in state().items() if value.ndim}
    Path("whole").write_bytes(saved(layer))

    def put(path, kind, values, **members):
        if compress:
            name = next(key for key, value in members.items() if value is values)
            packed = archive(zipfile.ZIP_DEFLATED, **members)
            Path(path).write_bytes(damaged_inside(packed, f"{name}.npy"))
        else:
            Path(path).write_bytes(damaged(archive(zipfile.ZIP_STORED, **members), values, at=0))

    put("x", "npz", x, x=x)
    put("w", "npz", weight, w=weight)
    put("table.npz", "npz", table["mean"], **table)
    numbers = {key: value.numpy() for key, value in layer.items()}
    put("bad", "npz", numbers["bn.running_var"], **numbers)
    result = run(*call)
    assert tuple(result)[:2] == (2, "")
    assert "does not match its checksum" in result.stderr
    assert result.stderr.count("\n") == 1
    assert run(*call, "--no-checksum").code in {0, 1}


def test_every_command_that_reads_has_the_flag(run):
    for name in COMMANDS:
        shown = run(name.replace("_", "-"), "--help").stdout
        assert ("--no-checksum" in shown) is COMMANDS[name].reads
    assert {call[0] for call in DAMAGED} == {
        name.replace("_", "-") for name, entry in COMMANDS.items() if entry.reads
    }


def test_the_pickle_and_the_program_are_checked_too(run, folder):
    whole = saved(state())
    Path("x").write_bytes(whole.replace(b"bn.weight", b"bn.heavy!", 1))
    result = run("inspect-checkpoint", "x")
    assert result.code == 2
    assert "data.pkl does not match" in result.stderr
    assert run("inspect-checkpoint", "x", "--no-checksum").code == 0
    script = scripted(Net().eval())
    Path("x").write_bytes(script)
    assert run("inspect-checkpoint", "x", "--fail-on=never").code == 0


def test_the_statistics_pass_reads_and_checks_a_stored_array(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 5, 7000)).astype(np.float32)
    data = archive(zipfile.ZIP_STORED, x=x)
    (tmp_path / "x").write_bytes(damaged(data, x, at=1000))
    with pytest.raises(CorruptFileError):
        channel_stats(open_tensor(f"{tmp_path / 'x'}::x"))
    (tmp_path / "x").write_bytes(data)
    assert channel_stats(open_tensor(f"{tmp_path / 'x'}::x")).count == 40 * 7000


@contextmanager
def bytes_read(monkeypatch):
    """How many bytes are read of files."""
    real, total = file_bytes.read_into, [0]

    def counting(file, path, offset, target):
        total[0] += len(target)
        real(file, path, offset, target)

    with monkeypatch.context() as patch:
        patch.setattr(file_bytes, "read_into", counting)
        yield total


def test_a_slice_of_a_large_storage_is_no_reason_to_read_all_of_it(tmp_path, monkeypatch):
    flat = torch.arange(3_000_000.0)
    data = damaged(saved({"part": flat[:100], "all": flat, "turned": flat.view(2, -1).t()}), flat)
    (tmp_path / "x").write_bytes(data)
    tensors = open_file(tmp_path / "x").tensors
    with bytes_read(monkeypatch) as total:
        assert tensors["part"].read().shape == (100,)
    assert total[0] == 400
    for name in ("all", "turned"):
        with pytest.raises(CorruptFileError):
            tensors[name].read()


def test_parts_of_a_small_storage_are_checked_once(tmp_path, monkeypatch):
    flat = torch.rand(1000)
    parts = {str(i): flat[10 * i : 10 * i + 10] for i in range(100)}
    whole = saved(parts)
    (tmp_path / "x").write_bytes(whole)
    tensors = open_file(tmp_path / "x").tensors
    with bytes_read(monkeypatch) as total:
        for name in tensors:
            tensors[name].read()
    assert total[0] == 2 * 4000
    (tmp_path / "x").write_bytes(damaged(whole, flat))
    with pytest.raises(CorruptFileError):
        open_file(tmp_path / "x").tensors["90"].read()


def without_checksums(obj, skip=False):
    """What torch.save writes when it is told to leave the checksums out."""
    if not skip:
        torch.serialization.set_crc32_options(False)
    try:
        return saved(obj)
    finally:
        torch.serialization.set_crc32_options(True)


@pytest.mark.skipif(
    not hasattr(torch.serialization, "set_crc32_options"), reason="this torch always writes them"
)
def test_a_file_without_checksums_is_read_and_said(run, folder):
    data = without_checksums(state())
    with zipfile.ZipFile(io.BytesIO(data)) as parts:
        assert {item.CRC for item in parts.infolist()} == {0}
    Path("x").write_bytes(data)
    result = run("inspect-checkpoint", "x", "-f", "json")
    assert result.code == 0
    assert "without checksums" in result.report["facts"]["notes"][0]
    Path("x").write_bytes(saved(state()))
    assert "notes" not in run("inspect-checkpoint", "x", "-f", "json").report["facts"]


def test_storages_that_were_filled_later_have_none(run, folder):
    """torch.serialization.skip_data leaves room for them, and a checksum of 0."""
    data = saved(state())
    with zipfile.ZipFile(io.BytesIO(data)) as parts:
        crcs = [item.CRC for item in parts.infolist() if "/data/" in item.filename]
    for crc in crcs:
        assert data.count(crc.to_bytes(4, "little")) >= 2
        data = data.replace(crc.to_bytes(4, "little"), bytes(4))
    Path("x").write_bytes(data)
    result = run("inspect-checkpoint", "x", "-f", "json")
    assert result.code == 0
    assert len(result.report["facts"]["notes"]) == 1
    one = saved(state()).replace(crcs[2].to_bytes(4, "little"), bytes(4))
    Path("x").write_bytes(one)  # the others say that checksums were written
    assert run("inspect-checkpoint", "x").code == 2


def test_a_flip_of_any_bit_is_found_by_the_one_who_reads_it(tmp_path):
    """Torn, cut or turned: values are what was written, or there are none."""
    data = saved(state())
    expected = {key: value.numpy() for key, value in state().items()}
    rng = random.Random(0)
    seen = 0
    for _ in range(150):
        bad = bytearray(data)
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        (tmp_path / "x").write_bytes(bad)
        try:
            found = {key: ref.read() for key, ref in open_file(tmp_path / "x").tensors.items()}
        except CorruptFileError:
            seen += 1
        except BncliError:  # such as a compression that is not known
            continue
        else:
            assert found.keys() == expected.keys()
            for key, values in expected.items():
                np.testing.assert_array_equal(found[key], values)
    assert seen > 50


def test_shards_are_checked_like_any_file(run, folder):
    data = damaged(saved(state()), state()["bn.running_var"])
    Path("a.bin").write_bytes(data)
    Path("i.json").write_text(json.dumps({"weight_map": dict.fromkeys(state(), "a.bin")}))
    result = run("inspect-checkpoint", "i.json")
    assert result.code == 2
    assert "a.bin" in result.stderr


def test_quantised_meta_and_complex_tensors_stay_a_note(run, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.quantize_per_tensor(torch.ones(CHANNELS), 0.1, 0, torch.quint8)
    for spoilt in (
        quantised,
        torch.ones(CHANNELS, device="meta"),
        torch.ones(CHANNELS, dtype=torch.complex64),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.save(state() | {"bn.weight": spoilt}, "x")
        result = run("inspect-checkpoint", "x", "-f", "json")
        assert result.code == 0
        assert [item["code"] for item in result.report["findings"]] == ["BN207"]


def test_what_is_announced_comes_in_one_request():
    data = np.arange(1 << 18, dtype=np.float32)
    with web_server(files={"/x": data.tobytes()}) as server, reading():
        path = as_path(f"{server.url}/x")
        places = [FileBytes(path, at << 12, 4096) for at in range(100, 140, 2)]
        announce([*places, FileBytes(Path("x"), 0, 4), None, "other"])
        assert len(server.asked) == 1  # for the size
        for place in reversed(places):
            with place.opened() as file:
                values = place.elements(file, np.dtype("<f4"), [1024], [1])
            np.testing.assert_array_equal(values, data[place.offset // 4 :][:1024])
        assert [each.wanted for each in server.asked[1:]] == [(100 << 12, 139 << 12)]
