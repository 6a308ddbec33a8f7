"""Ranks of a group as processes of their own, started as torchrun would or by torchrun itself.

Whatever listens, listens on the loopback.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from bncli.commands.capture.command import _captured
from bncli.commands.compute.sums_first import _read
from bncli.errors import FileError
from bncli.files.save import replacing
from bncli.moments.team import default_threads

TORCHRUN = """
import socket, sys
from torch.distributed import TCPStore
from torch.distributed.elastic.rendezvous import static_tcp_rendezvous
from torch.distributed.run import main

def store(host, port, world_size=None, is_master=False, *rest, **kwargs):
    if is_master:  # torchrun's own would listen everywhere
        kwargs["multi_tenant"] = False
        kwargs["master_listen_fd"] = socket.create_server(("127.0.0.1", port)).detach()
    return TCPStore(host, port, world_size, is_master, *rest, **kwargs)

static_tcp_rendezvous.TCPStore = store
main(sys.argv[1:])
"""
LIMIT = 60.0
"""Seconds that no group should take."""


def free_port() -> int:
    """A port of the loopback that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


@cache
def context():
    """A process that has imported torch once, and makes those that are asked for."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # which bncli sets before it imports it
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["torch.distributed", "bncli.cli", __name__])
    return found


def environment(rank: int, world: int, port: int) -> dict[str, str]:
    """What torchrun would say to a rank."""
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
    }  # fmt: skip


@dataclass
class Done:
    """What a rank left behind."""

    code: int
    stdout: str
    stderr: str
    seconds: float


class Group:
    """Ranks that run; `constants` are set in their modules first, as {"module:NAME": value}."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._begun = time.monotonic()
        self._ends: dict[int, float] = {}
        self.processes = []

    def start(self, arguments, values: dict[str, str], constants=None) -> None:
        """One more rank, with this environment."""
        number = len(self.processes)
        process = context().Process(
            target=_run,
            args=(
                [*map(str, arguments)],
                values,
                constants or {},
                str(Path.cwd()),
                self._place(number),
            ),
        )
        process.start()
        self.processes.append(process)

    def _place(self, number: int) -> str:
        return str(self._folder / f"rank{number}")

    def error(self, number: int) -> str:
        """What a rank has printed on standard error so far."""
        with suppress(FileNotFoundError):
            return Path(self._place(number) + ".err").read_text("utf-8")
        return ""

    def kill(self, number: int, how: int = signal.SIGKILL) -> None:
        """Send a signal to a rank."""
        os.kill(self.processes[number].pid, how)

    def wait_for(self, path: Path) -> None:
        """Wait until a file is there."""
        end = time.monotonic() + LIMIT
        while not path.exists():
            assert time.monotonic() < end, [self.error(n) for n in range(len(self.processes))]
            time.sleep(0.01)

    def done(self) -> list[Done]:
        """All ranks, when they have ended."""
        end = time.monotonic() + LIMIT
        while any(process.is_alive() for process in self.processes):
            for number, process in enumerate(self.processes):
                if not process.is_alive():
                    self._ends.setdefault(number, time.monotonic() - self._begun)
            if time.monotonic() > end:
                for process in self.processes:
                    process.kill()
                raise AssertionError([self.error(n) for n in range(len(self.processes))])
            time.sleep(0.01)
        return [
            Done(
                process.exitcode,
                Path(self._place(number) + ".out").read_text("utf-8"),
                self.error(number),
                self._ends.get(number, time.monotonic() - self._begun),
            )
            for number, process in enumerate(self.processes)
        ]


def _run(arguments, values, constants, folder, place) -> None:
    """One rank, in a process of its own."""
    import importlib

    from bncli.__main__ import entry_point

    for number, ending in ((1, ".out"), (2, ".err")):
        file = os.open(place + ending, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  # the process's own
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(values)
    os.chdir(values.get("FOLDER", folder))
    for name, value in constants.items():
        module, _, constant = name.partition(":")
        setattr(importlib.import_module(module), constant, value)
    sys.argv = ["bncli", *arguments]
    sys.path[:] = [each for each in sys.path if each]
    entry_point()


def ranks(folder: Path, world: int, *arguments, constants=None) -> Group:
    """A group of `world` ranks that run the same call."""
    group, port = Group(folder), free_port()
    for rank in range(world):
        group.start(arguments, environment(rank, world, port), constants)
    return group


def torchrun(world: int, *arguments, port: int | None = None) -> subprocess.CompletedProcess[str]:
    """A call of bncli under torchrun."""
    command = [sys.executable, "-c", TORCHRUN, f"--nproc-per-node={world}",
               "--master-addr=127.0.0.1", f"--master-port={port or free_port()}",
               "-m", "bncli", *map(str, arguments)]  # fmt: skip
    values = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, env=os.environ | values
    )


# ------------------------------------------------------------------ in place of reading a batch


def stuck_in_python(source, i, dtype):
    """Rank 1 fails; the others compute for an hour."""
    _fail_on_1()
    while True:
        np.arange(1000).sum()


def stuck_in_c(source, i, dtype):
    """The same, where no signal is heard."""
    _fail_on_1()
    hashlib.pbkdf2_hmac("sha1", b"", b"", 2**31 - 1)


def stuck_in_c_with_a_file(source, i, dtype):
    """The same as `stuck_in_c`, while a file is being written."""
    _fail_on_1_when("begun0")
    with replacing(Path("unfinished.npz")) as stream:
        stream.write(b"half")
        Path("begun0").touch()
        hashlib.pbkdf2_hmac("sha1", b"", b"", 2**31 - 1)


def stuck_with_a_sign(source, i, dtype):
    """All compute for an hour, after a sign that they do."""
    Path(f"begun{os.environ['RANK']}").touch()
    while True:
        np.arange(1000).sum()


def broken(source, i, dtype):
    """Rank 1 has a bug."""
    if os.environ["RANK"] == "1":
        raise ZeroDivisionError
    while True:
        np.arange(1000).sum()


def _fail_on_1_when(there):
    end = time.monotonic() + LIMIT
    while os.environ["RANK"] == "1" and not Path(there).exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    _fail_on_1()


def _fail_on_1():
    if os.environ["RANK"] == "1":
        raise FileError("b1.npy", "it is broken.")


# ------------------------------------------------------------------ in place of compute's sums


def fails_after_the_others(specs, part, reading, layer, *, per_batch):
    """Rank 1 fails when the others have saved their parts."""
    if os.environ["RANK"] != "1":
        return _read(specs, part, reading, layer, per_batch=per_batch)
    end = time.monotonic() + LIMIT
    while len([*Path().glob("whole.part-*")]) < int(os.environ["WORLD_SIZE"]) - 1:
        assert time.monotonic() < end
        time.sleep(0.01)
    raise FileError("s1.npy", "it is broken.")


def read_once(specs, part, reading, layer, *, per_batch):
    """Leaves a file that says which rank reads."""
    Path(f"read-{os.environ['RANK']}").touch()
    return _read(specs, part, reading, layer, per_batch=per_batch)


def notes_threads(specs, part, reading, layer, *, per_batch):
    """Leaves a file that says how many threads the engine takes, of eight processors."""
    os.sched_getaffinity = lambda process: range(8)
    Path(f"threads-{os.environ['RANK']}-{default_threads()}").touch()
    return _read(specs, part, reading, layer, per_batch=per_batch)


# ------------------------------------------------------------------ in place of capture's passes


def capture_fails_on_1(session, *, per_batch):
    """Rank 1 fails when rank 0 has saved its part."""
    if os.environ["RANK"] == "0":
        return _captured(session, per_batch=per_batch)
    end = time.monotonic() + LIMIT
    while not Path("whole.part-0-of-2.npz").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    raise FileError("x1.npy", "it is broken.")


def capture_once(session, *, per_batch):
    """Leaves a file that says which rank runs the model."""
    Path(f"ran-{os.environ['RANK']}").touch()
    return _captured(session, per_batch=per_batch)
