"""Stores, ports and payloads of torch.distributed itself, on the loopback."""

from __future__ import annotations

import re
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bncli.errors import MissingBackendError, RankError
from bncli.process.ranks import meeting
from tests.process.ranks.fakes import place
from tests.process.ranks.launch import free_port


@pytest.fixture
def kept(monkeypatch):
    """Rank 0 of a group of two, which keeps the store, and its port."""
    monkeypatch.setattr(meeting, "JOIN_SECONDS", 2.0)
    return replace(place(0, 2), port=free_port(), hosted=False)


def test_two_ranks_meet_at_the_store_that_rank_0_keeps(kept):
    _, first, watched = meeting.open_stores(kept)
    _, second, _ = meeting.open_stores(replace(kept, rank=1))
    first.set("x", "from 0")
    assert second.get("x") == watched.get("x") == b"from 0"
    assert second.add("n", 2) == 2
    assert not second.check(["absent"])


def test_attempts_do_not_see_each_other(kept):
    _, first, _ = meeting.open_stores(kept)
    _, again, _ = meeting.open_stores(replace(kept, rank=1, attempt="t/1"))
    first.set("x", "former")
    assert not again.check(["x"])


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_the_store_listens_on_this_machine_alone_where_all_ranks_are_here(kept):
    stores = meeting.open_stores(kept)
    text = "".join(Path(f"/proc/net/{name}").read_text("ascii") for name in ("tcp", "tcp6"))
    listening = re.findall(rf"([0-9A-F]+):{kept.port:04X} \S+ 0A", text)
    assert listening == ["0100007F"]
    del stores


def test_a_port_in_use_and_one_where_nobody_listens(kept, monkeypatch):
    with (
        socket.create_server(("127.0.0.1", kept.port)),
        pytest.raises(RankError, match="another process uses the port"),
    ):
        meeting.open_stores(kept)
    monkeypatch.setattr(meeting, "JOIN_SECONDS", 0.0)
    with pytest.raises(RankError, match=r"rank 0 did not answer at .*Connection refused"):
        meeting.open_stores(replace(kept, rank=1))
    with pytest.raises(RankError, match="torchrun did not answer"):
        meeting.open_stores(replace(kept, rank=1, hosted=True))


def test_a_port_where_something_else_listens(kept, monkeypatch):
    def none(*_, **__):
        raise RuntimeError("Ping failed, invalid value returned from server")

    monkeypatch.setattr(meeting, "JOIN_SECONDS", 0.0)
    with socket.create_server(("127.0.0.1", kept.port)):
        monkeypatch.setattr(meeting.library(), "TCPStore", none)
        with pytest.raises(RankError, match=r"\(what listens there is not a store of torch\."):
            meeting.open_stores(replace(kept, rank=1))


def test_a_name_that_leads_nowhere(kept, monkeypatch):
    def unknown(*_):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(meeting, "JOIN_SECONDS", 0.0)
    monkeypatch.setattr(socket, "create_connection", unknown)
    with pytest.raises(RankError, match="the name MASTER_ADDR cannot be found: Name or service"):
        meeting.open_stores(replace(kept, rank=1, address="nowhere"))


def test_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.distributed", None)
    with pytest.raises(MissingBackendError, match="--distributed needs PyTorch, which is not"):
        meeting.library()


def test_a_torch_without_gloo(monkeypatch):
    import torch.distributed

    monkeypatch.setattr(torch.distributed, "is_gloo_available", lambda: False)
    with pytest.raises(MissingBackendError, match=r"built without torch\.distributed and gloo"):
        meeting.library()


def test_an_empty_payload_needs_nobody(kept, monkeypatch):
    """What comes from others is in test_together, as it takes two processes."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    kept = replace(kept, world=1)
    store, _, _ = meeting.open_stores(kept)
    gloo = meeting.Gloo(kept, store)
    assert gloo.receive(0, 0) == b""
    gloo.send(b"")
    gloo.close()
    gloo.close()  # as where the user's code did it
