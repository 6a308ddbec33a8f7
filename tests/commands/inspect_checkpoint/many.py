"""Many checkpoints of every kind that a report says something else of."""

from __future__ import annotations

import io
import json
import math
import tarfile
from pathlib import Path

import torch
from torch import nn

from tests.commands.inspect_checkpoint.networks import net
from tests.commands.inspect_checkpoint.small import small
from tests.conftest import REPOSITORY
from tests.files.test_file_bytes import without_checksums


def write_many(folder: Path) -> list[str]:
    """Write them below `folder`, and give the specs, in an order that is not that of names."""
    healthy = small().state_dict()
    torch.save(healthy, folder / "z.pt")
    for value, name in ((math.nan, "nan"), (math.inf, "inf"), (-1.0, "negative")):
        state = small(1).state_dict()
        state["body.running_var"][2] = value
        torch.save(state, folder / f"{name}.pt")
    torch.save({**healthy, "head.num_batches_tracked": torch.tensor(math.nan)}, folder / "count.pt")
    (folder / "cut.pt").write_bytes((folder / "z.pt").read_bytes()[:-300])
    torch.save(nn.LayerNorm(3).state_dict(), folder / "norm.pt")
    torch.save(
        {f"{name}.{key}": value for name in "ab" for key, value in healthy.items()},
        folder / "shared.pt",
    )
    torch.save(net(), folder / "whole.pt")
    unread = {**healthy, "head.running_var": torch.empty(4, device="meta")}
    torch.save(unread | {"more": torch.empty(4, device="meta")}, folder / "meta.pt")
    (folder / "plain.pt").write_bytes(without_checksums(healthy))
    _archive(folder / "two.tar", {"one.pt": healthy, "other.pt": small(2).state_dict()})
    _sharded(folder / "sharded", healthy)
    for name in ("net.onnx", "folded.onnx"):
        (folder / name).write_bytes((REPOSITORY / "examples/frameworks" / name).read_bytes())
    names = [
        *("z.pt", "nan.pt", "shared.pt::b", "sharded", "cut.pt", "count.pt", "norm.pt", "net.onnx"),
        *("inf.pt", "missing.pt", "whole.pt", "meta.pt", "plain.pt", "two.tar", "folded.onnx"),
        *("negative.pt", "shared.pt::a.head"),
    ]
    return [f"{folder.name}/{name}" for name in names]


def _archive(path: Path, states: dict[str, object]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, state in states.items():
            out = io.BytesIO()
            torch.save(state, out)
            entry = tarfile.TarInfo(name)
            entry.size = out.tell()
            archive.addfile(entry, io.BytesIO(out.getvalue()))


def _sharded(folder: Path, state: dict[str, torch.Tensor]) -> None:
    """A model in two files and an index; a layer's statistics lie apart from its parameters."""
    folder.mkdir()
    places = {key: f"pytorch_model-{1 + ('running' in key):05d}-of-00002.bin" for key in state}
    for name in set(places.values()):
        torch.save({key: state[key] for key in state if places[key] == name}, folder / name)
    index = {"metadata": {}, "weight_map": places}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
