"""The symbol beside a file of arrays."""

import pytest

from bncli.errors import CorruptFileError, FileError
from bncli.loaders.mxnet.symbol import Node, read_symbol, symbol_of
from tests.loaders.mxnet_files import symbol


@pytest.mark.parametrize("attrs", ["attrs", "attr", "param"])
def test_nodes_with_their_attributes_and_inputs(attrs, tmp_path):
    path = tmp_path / "net-symbol.json"
    path.write_bytes(symbol({"bn0": {"eps": "1e-4"}}, attrs))
    nodes = read_symbol(path)
    assert nodes[0] == Node("null", "data", {}, ())
    assert nodes[2] == Node("Convolution", "conv0", {"no_bias": "True"}, (0, 1))
    assert nodes[-1] == Node("BatchNorm", "bn0_fwd", {"eps": "1e-4"}, (2, 3, 4, 5, 6))


HOSTILE = {
    "text": b"not json",
    "list": b"[]",
    "no nodes": b"{}",
    "deep": b"[" * 100_000,
    "cycle": b'{"nodes": [{"op": "BatchNorm", "name": "a", "inputs": [[0, 0, 0]]}]}',
    "negative": b'{"nodes": [{"op": "BatchNorm", "name": "a", "inputs": [[-1, 0, 0]]}]}',
    "no inputs": b'{"nodes": [{"op": "BatchNorm", "name": "a"}]}',
    "empty input": b'{"nodes": [{"op": "BatchNorm", "name": "a", "inputs": [[]]}]}',
    "name": b'{"nodes": [{"op": "BatchNorm", "name": [], "inputs": []}]}',
    "attribute": b'{"nodes": [{"op": "x", "name": "a", "inputs": [], "attrs": {"eps": 1}}]}',
    "attributes": b'{"nodes": [{"op": "x", "name": "a", "inputs": [], "attrs": [1]}]}',
    "utf-8": b'{"nodes": "\xff"}',
    "many": b'{"nodes": [' + b"[]," * 2_000_000 + b"[]]}",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_no_symbol_says_so(kind, tmp_path):
    path = tmp_path / "net-symbol.json"
    path.write_bytes(HOSTILE[kind])
    with pytest.raises(CorruptFileError, match=r"net-symbol.json: it should be the symbol file"):
        read_symbol(path)


def test_where_the_symbol_lies(tmp_path):
    symbol_path = tmp_path / "net-symbol.json"
    assert symbol_of(tmp_path / "net-0001.params") == symbol_path
    assert symbol_of(tmp_path / "net.params") == symbol_path
    assert symbol_of(tmp_path / "net-01-0001.params") == tmp_path / "net-01-symbol.json"
    symbol_path.symlink_to("nowhere")
    with pytest.raises(FileError, match="there is no such file"):
        read_symbol(symbol_path)
