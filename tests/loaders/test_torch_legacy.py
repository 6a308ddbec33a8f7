import collections
import io
import pickle
import struct

import numpy as np
import pytest
import torch

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.loaders import open_file
from bncli.state_dict import batch_norm_layers, read_state

from .files import Net, assert_same, bits, saved, values
from .pickles import dictionary, integer, pid, tensor, text, torch_legacy, tup, whole

OLD = {"_use_new_zipfile_serialization": False}


def opened(tmp_path, data):
    path = tmp_path / "x"
    path.write_bytes(data)
    return open_file(path)


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_every_pickle_protocol_as_torch_reads_it(protocol, tmp_path):
    data = saved({"state_dict": values(), "epoch": 1}, pickle_protocol=protocol, **OLD)
    file = opened(tmp_path, data)
    assert file.container == "torch-legacy"
    expected = torch.load(io.BytesIO(data), weights_only=False)["state_dict"]
    assert_same(file.tensors, {f"state_dict.{k}": v for k, v in expected.items()})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("protocol", [1, 2, 4])
def test_whole_modules(protocol, tmp_path):
    net = Net()
    file = opened(tmp_path, saved(net, pickle_protocol=protocol, **OLD))
    assert list(file.tensors) == list(net.state_dict())
    assert_same(file.tensors, net.state_dict())
    assert file.modules["bn"].class_name == "BatchNorm2d"
    assert (file.modules["bn"].eps, file.modules["bn"].momentum) == (1e-3, 0.03)


def test_protocol_0_has_lost_its_references(tmp_path):
    """It spells a reference as text, which torch.load cannot read back either."""
    data = saved(values(), pickle_protocol=0, **OLD)
    with pytest.raises(AssertionError):
        torch.load(io.BytesIO(data), weights_only=False)
    with pytest.raises(
        CorruptFileError, match="refers to a storage in a way that PyTorch does not"
    ):
        opened(tmp_path, data)


class OldStorage:
    """Stands for a storage while the stdlib's pickler writes a file as PyTorch 0.3 did."""

    def __init__(self, key, numel, view=None):
        self.pid = ("storage", torch.FloatStorage, key, "cpu", numel, view)


class OldPickler(pickle._Pickler):
    def persistent_id(self, obj):
        return obj.pid if isinstance(obj, OldStorage) else None


class OldTensor:
    def __init__(self, storage, offset, size, stride):
        self.args = storage, offset, size, stride

    def __reduce__(self):
        return torch._utils._rebuild_tensor, self.args


class OldParameter:
    def __init__(self, tensor):
        self.tensor = tensor

    def __reduce__(self):
        return torch.nn.Parameter, (self.tensor,)


class OldOrderedDict:
    """An OrderedDict as Python 2 pickles it: a list of lists in one argument."""

    def __init__(self, items):
        self.items = items

    def __reduce__(self):
        return collections.OrderedDict, ([[k, v] for k, v in self.items.items()],)


def old_file(obj, storages):
    def dumped(value):
        out = io.BytesIO()
        OldPickler(out, 2).dump(value)
        return out.getvalue()

    return (
        dumped(0x1950A86A20F9469CFC6C)
        + dumped(1001)
        + dumped({"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}})
        + dumped(obj)
        + dumped(list(storages))
        + b"".join(struct.pack("<q", len(a)) + a.tobytes() for a in storages.values())
    )


def test_a_file_of_pytorch_0_3_without_counters(tmp_path):
    """Old rebuilding function, storages that are views of storages, Python 2's dictionaries."""
    data = np.arange(24, dtype="<f4")
    root = ("94000", 24)
    view = OldStorage(*root, ("94001", 8, 12))
    state = {
        "bn.weight": OldParameter(OldTensor(OldStorage(*root), 0, (4,), (1,))),
        "bn.bias": OldTensor(OldStorage(*root), 4, (4,), (1,)),
        "bn.running_mean": OldTensor(view, 0, (4,), (1,)),
        "bn.running_var": OldTensor(view, 4, (4,), (1,)),
        "fc.weight": OldTensor(OldStorage(*root, None), 0, (3, 4), (1, 6)),
    }
    raw = old_file(OldOrderedDict(state), {"94000": data})
    expected = torch.load(io.BytesIO(raw), weights_only=False)
    assert expected["bn.running_mean"].tolist() == [8, 9, 10, 11]
    file = opened(tmp_path, raw)
    assert_same(file.tensors, {k: v.data for k, v in expected.items()})
    (layer,) = batch_norm_layers(file)
    state = read_state(layer)
    assert (layer.name, state.num_batches_tracked) == ("bn", None)
    assert state.running_var.tolist() == [12, 13, 14, 15]


def test_strings_of_python_2(tmp_path):
    """Keys and storage names as byte strings, some of which are no UTF-8."""
    value = tensor(reference=pid().replace(text("0"), b"U\x010"))
    raw = torch_legacy(b"}U\x04caf\xe9" + value + b"s")
    assert list(opened(tmp_path, raw).tensors) == ["caf\xe9"]


def test_the_source_text_of_classes_is_only_carried(tmp_path):
    cls = tup(text("module"), b"cmodels\nNet\n", text("net.py"), text("import os")) + b"Q"
    raw = torch_legacy(cls + b")\x81" + dictionary(w=tensor()) + b"b")
    assert list(opened(tmp_path, raw).tensors) == ["w"]


def test_shared_storages_and_views(tmp_path):
    base = torch.arange(12.0)
    raw = saved({"a": base, "b": base[4:8], "c": base.view(3, 4).t()}, **OLD)
    file = opened(tmp_path, raw)
    assert bits(file.tensors["c"].stored()) == bits(base.view(3, 4).t())
    assert file.tensors["b"].storage.offset == file.tensors["a"].storage.offset + 16


def test_other_protocols_and_lists_are_refused(tmp_path):
    magic = whole(integer(0x1950A86A20F9469CFC6C))
    with pytest.raises(UnsupportedFileError, match=r"a protocol that no PyTorch before 1.6 had"):
        opened(tmp_path, magic + whole(integer(1002)))
    parts = magic + whole(integer(1001)) + whole(dictionary()) + whole(dictionary())
    with pytest.raises(CorruptFileError, match="its list of storages is missing"):
        opened(tmp_path, parts + whole(b"N"))
    with pytest.raises(CorruptFileError, match="it ends before its pickle does"):
        opened(tmp_path, parts)
    with pytest.raises(CorruptFileError, match=r"its storage 0 should have 16 bytes, but 12 are"):
        opened(tmp_path, torch_legacy(tensor(), {"0": (4, bytes(12))}))
