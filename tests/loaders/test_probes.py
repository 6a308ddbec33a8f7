"""Probes say yes to what they look for, and no to its neighbours."""

import struct

import pytest

from bncli.loaders import probes
from bncli.loaders.interface import open_source

from .test_kinds import field, tar


@pytest.fixture
def look(tmp_path):
    """Whether a probe takes these bytes for its own, under this name."""

    def look(probe, data, name="x"):
        (tmp_path / name).write_bytes(data)
        with open_source(tmp_path / name) as source:
            return probe(source)

    return look


def test_words_at_the_begin_or_anywhere_near_it(look, monkeypatch):
    assert look(probes.begins(b"AB", b"CD"), b"CDE")
    assert not look(probes.begins(b"AB", b"CD"), b"xCDE")
    assert look(probes.begins(b"CD", at=1), b"xCDE")
    monkeypatch.setattr(probes, "SEARCHED", 100)
    assert look(probes.holds(b"no", b"word"), bytes(96) + b"word")
    assert not look(probes.holds(b"no", b"word"), bytes(97) + b"word")


@pytest.mark.parametrize("start", [b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe"])
def test_programs(look, start):
    assert look(probes.is_program, start + bytes(9))
    assert not look(probes.is_program, b"x" + start)
    windows = bytearray(b"MZ".ljust(0x3C, b"\1") + struct.pack("<I", 0x50) + bytes(16) + b"PE\0\0")
    assert look(probes.is_program, bytes(windows))
    windows[0x3C] = 0x4F
    assert not look(probes.is_program, bytes(windows))


@pytest.mark.parametrize(("at", "blank"), [(0, False), (4095, False), (5000, True), (9999, False)])
def test_blank_at_both_ends(look, at, blank):
    data = bytearray(10_000)
    data[at] = 1
    assert look(probes.is_blank, bytes(data)) is blank


@pytest.mark.parametrize(
    ("text", "html"),
    [
        (b"<HTML>", True),
        (b"\xef\xbb\xbf \n<!doctype html>", True),
        (b"<head>", True),
        (b"<body>", True),
        (b"<?xml?><html", True),
        (b"<!-- x --><html", True),
        (b"<?xml?><Error>", False),
        (b"<svg><html", False),
    ],
)
def test_web_pages(look, text, html):
    assert look(probes.is_html, text) is html


@pytest.mark.parametrize("protocol", range(8))
def test_pickles_name_their_protocol(protocol):
    assert probes.is_pickle(bytes([0x80, protocol])) == (2 <= protocol <= 5)
    assert not probes.is_pickle(bytes([0x81, protocol]))


def test_a_tar_by_its_checksum(look):
    data = bytearray(tar("sys_info"))
    assert look(probes.is_tar, bytes(data))
    assert look(probes.is_torch_tar, bytes(data))
    assert not look(probes.is_torch_tar, tar("model.pt"))
    assert not look(probes.is_tar, bytes(data[:511]))
    data[200] ^= 1
    assert not look(probes.is_tar, bytes(data))


@pytest.mark.parametrize("at", [0, 512, 1024, 2048, 256, 4096])
def test_hdf5_behind_a_block_of_the_users(look, at):
    data = bytes(at) + b"\x89HDF\r\n\x1a\n"
    assert look(probes.is_hdf5, data) == (at not in {256, 4096})
    assert not look(probes.is_hdf5, data[:-1])


MATLAB = (0, 2, 3, 0, 2)


@pytest.mark.parametrize(
    ("header", "fits"),
    [
        (MATLAB, True),
        ((52, 2, 3, 0, 2), True),
        ((0, 2, 3, 1, 2), False),  # twice as many bytes as there are
        ((0, 2, 4, 0, 2), False),
        ((100, 2, 3, 0, 2), False),
        ((60, 2, 3, 0, 2), False),
        ((3, 2, 3, 0, 2), False),
        ((0, -2, 3, 0, 2), False),
        ((0, 2, 3, 2, 2), False),
        ((0, 2, 3, 0, 65), False),
    ],
)
@pytest.mark.parametrize("order", "<>")
def test_matlab_4(look, order, header, fits):
    kind, *rest = header
    data = struct.pack(f"{order}5i", kind + 1000 * (order == ">"), *rest) + b"x\0" + bytes(48)
    assert look(probes.is_matlab4, data) is fits
    assert not look(probes.is_matlab4, data.replace(b"x\0", b"1\0"))
    assert not look(probes.is_matlab4, data[:21])


@pytest.mark.parametrize(
    ("data", "table"),
    [
        (b"\x81\xa1w\x01", True),
        (b"\x8f\xa1w\x01", True),
        (b"\xde\0\1\xa1w\x01", True),
        (b"\xdf\0\0\0\1\xa1w\x01", True),
        (b"\x81\xd9\x01w\x01", True),
        (b"\x80\xa1w\x01", False),
        (b"\x90\xa1w\x01", False),
        (b"\x81\xa0w\x01", False),
        (b"\x81\xa1\x07\x01", False),
        (b"\x81\xa1\xff\x01", False),
        (b"\x81\x01w\x01", False),
        (b"\x81\xa1", False),
    ],
)
def test_msgpack(look, data, table):
    assert look(probes.is_msgpack, data) is table


@pytest.mark.parametrize(
    ("version", "fits"),
    [((0, 1, 0), True), ((0, 2, 9), True), ((0, 3, 0), False), ((0, 2, 10), False),
     ((1, 2, 0), False), ((0, 0, 0), False), ((0, 1, -1), False)],
)  # fmt: skip
def test_darknet(look, version, fits):
    data = struct.pack("<3i", *version) + bytes(8)
    assert look(probes.is_darknet, data, "yolo.weights") is fits
    assert not look(probes.is_darknet, data, "yolo.bin")
    assert not look(probes.is_darknet, data[:19], "yolo.weights")


@pytest.mark.parametrize(
    ("name", "data", "fits"),
    [
        ("a.data-00000-of-00001", b"x", True),
        ("a.data-0000-of-00001", b"x", False),
        ("a.data-00000-of-00001.gz", b"x", False),
    ],
)
def test_tensorflow_data(look, name, data, fits):
    assert look(probes.is_tensorflow_data, data, name) is fits


@pytest.mark.parametrize(
    ("data", "fields"),
    [
        (field(1, 8) + field(2, b"abc"), {1: 0, 2: 2}),
        (b"\x09" + bytes(8) + b"\x15" + bytes(4), {1: 1, 2: 5}),
        (b"\x08\x80\x80\x01", {1: 0}),
        (b"\x92\x01\x00", {18: 2}),
        (b"", {}),
        (b"\x09" + bytes(7), None),
        (b"\x15" + bytes(3), None),
        (field(2, b"abc")[:-1], None),
        (b"\x0b", None),  # a group
        (b"\x00\x01", None),  # field 0
        (b"\x08" + b"\xff" * 10 + b"\x01", None),
    ],
)
def test_protobuf(look, data, fields):
    assert look(probes.protobuf_fields, data) == fields


def test_of_very_many_fields_the_first_are_enough(look, monkeypatch):
    monkeypatch.setattr(probes, "MOST_FIELDS", 3)
    assert look(probes.protobuf_fields, field(1, 8) * 3 + b"\xff") == {1: 0}


NAME = field(1, b"net")
CORE_ML = field(1, 4) + field(2, b"x") + b"\xc2\x0c\x01x"


@pytest.mark.parametrize(
    ("probe", "data", "fits"),
    [
        (probes.is_saved_model, field(1, 1) + field(2, b"g"), True),
        (probes.is_saved_model, field(1, 2) + field(2, b"g"), False),
        (probes.is_saved_model, field(1, 1) + field(2, b"g") + field(3, 1), False),
        (probes.is_core_ml, CORE_ML, True),
        (probes.is_core_ml, field(1, 4) + field(2, b"x") + b"\xba\x0c\x01x", False),  # 199
        (probes.is_core_ml, field(1, 4) + b"\xc2\x0c\x01x", False),
        (probes.is_protobuf_list, field(1, NAME) * 3, True),
        (probes.is_protobuf_list, field(1, b"\x12\x01x") * 3, False),
        (probes.is_protobuf_list, field(1, NAME) + b"\xff", False),
    ],
)
def test_messages(look, probe, data, fits):
    assert look(probe, data) is fits


@pytest.mark.parametrize(
    ("data", "fits"),
    [
        (NAME + b"\xa2\x06\x01x", True),
        (NAME + field(2, b"x"), True),
        (NAME + field(3, b"x"), False),
    ],
)
def test_caffe(look, data, fits):
    assert look(probes.is_caffe, data, "net.caffemodel") is fits
    assert not look(probes.is_caffe, data, "net.bin")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"\x05", (5, 1)),
        (b"\xac\x02\xff", (300, 2)),
        (b"\xff" * 9 + b"\x01", ((1 << 64) - 1, 10)),
        (b"\xff" * 9 + b"\x7f", ((1 << 64) - 1, 10)),  # bits beyond the 64th are left out
        (b"\xff" * 10 + b"\x01", (-1, 11)),
        (b"\x80", (-1, 1)),
        (b"", (-1, 0)),
    ],
)
def test_numbers_of_7_bits_a_byte(data, found):
    assert probes.varint(data) == found
