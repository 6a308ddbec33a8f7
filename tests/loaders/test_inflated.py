"""Compressed storages: inflated once for all their tensors, and kept as far as they are used."""

import types
import zipfile

import pytest
import torch

from bncli.loaders import inflated
from bncli.loaders.deflated import Packed

from .files import assert_same, saved
from .test_torch_zip import opened, rewritten


def test_a_compressed_storage_is_inflated_once_for_all_its_tensors(tmp_path, monkeypatch):
    flat = torch.randn(3_000)
    views = {f"k{n}": flat[10 * n : 10 * n + 10] for n in range(5, 200)}
    file = opened(tmp_path, rewritten(saved(views), zipfile.ZIP_DEFLATED))
    inflated = []
    chunks = Packed.chunks

    def counted(packed):
        inflated.append(packed.name)
        return chunks(packed)

    monkeypatch.setattr(Packed, "chunks", counted)
    assert_same(file.tensors, views)
    assert len(inflated) == 1


def test_what_is_kept_of_inflated_storages_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(inflated, "MOST_INFLATED", 1_000)
    tensors = {f"k{n}": torch.randn(100) for n in range(9)}
    file = opened(tmp_path, rewritten(saved(tensors), zipfile.ZIP_DEFLATED))
    assert_same(file.tensors, tensors)
    holders = {id(ref.storage.args[0]): ref.storage.args[0] for ref in file.tensors.values()}
    assert len(holders) == 1
    (holder,) = holders.values()
    kept = [len(data) for runs in holder.kept.values() for _, data in runs]
    assert kept == [400] * 2


@pytest.mark.parametrize("near", [0, 100, 1 << 16])
@pytest.mark.parametrize("piece", [1, 7, 1_000])
def test_of_an_inflated_storage_only_what_is_used_is_kept(near, piece, tmp_path, monkeypatch):
    monkeypatch.setattr(inflated, "NEAR", near)
    flat = torch.randn(2_000)
    views = {"all": flat[5:900], "inside": flat[20:30], "over": flat[890:905].reshape(5, 3),
             "far": flat[1_500:1_501], "last": flat[1_990:], "none": flat[3:3]}  # fmt: skip
    file = opened(tmp_path, rewritten(saved(views), zipfile.ZIP_DEFLATED))
    chunks = Packed.chunks

    def in_pieces(packed):
        whole = b"".join(chunks(packed))
        return (whole[at : at + piece] for at in range(0, len(whole), piece))

    monkeypatch.setattr(Packed, "chunks", in_pieces)
    assert_same(file.tensors, views)
    kept = file.tensors["all"].storage.args[0].kept
    sizes = [len(data) for runs in kept.values() for _, data in runs]
    assert sizes == ([1_995 * 4] if near == 1 << 16 else [900 * 4, 4, 40])


def test_what_packs_too_well_costs_its_inflation_for_each_further_tensor(monkeypatch):
    monkeypatch.setattr(inflated, "MOST_INFLATED", 1_000)
    kept = inflated.Inflated()
    for packed, size, cost in (
        (100, 1_601, 800),
        (100, 1_600, 0),
        (10, 1_000, 0),
        (10, 1_002, 501),
    ):
        storage = types.SimpleNamespace(offset=size, size=size, packed=packed)
        assert kept.cost(storage) == 0
        kept.will_use(storage, 0, 4)
        assert kept.cost(storage) == cost
