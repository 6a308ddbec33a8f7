"""Files copied with some of their bytes replaced, whole or not at all."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncli.errors import CorruptFileError, FileError
from bncli.files import edits
from bncli.files.edits import Edit, check_edited, write_edited, write_model
from bncli.files.reading import read_bytes, reading

SIZE = 300_000
CHANGES = [Edit(0, b"first"), Edit(SIZE // 2, b"middle" * 100), Edit(SIZE - 4, b"last")]
WAYS = ("clone", "range", "send", "pieces")


def content(size=SIZE, seed=0):
    return random.Random(seed).randbytes(size)


def names():
    """What is in the current folder."""
    return sorted(path.name for path in Path().iterdir())


def replaced(old, changes):
    new = bytearray(old)
    for offset, data in changes:
        new[offset : offset + len(data)] = data
    return bytes(new)


@pytest.fixture
def old(folder):
    """A file of random bytes that was last written long ago."""
    path = folder / "old"
    path.write_bytes(content())
    os.utime(path, (1e9, 1e9))
    return path


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    """The only way to copy, in small steps; its `before` is called before each of them."""
    return only(request.param, monkeypatch)


class Steps(list):
    """What a way of copying did: its name, once for each step."""

    def __init__(self, name, before=lambda: None):
        self.name = name
        self.before = before

    def __call__(self, function):
        def called(*arguments, **more):
            self.before()
            self.append(self.name)
            return function(*arguments, **more)

        return called


def only(name, monkeypatch):
    """Leave one way of copying; its steps are noted."""
    steps = Steps(name)
    monkeypatch.setattr(edits, "STRIDE", 1 << 16)
    monkeypatch.setattr(edits, "CHUNK", 1 << 16)
    fcntl = pytest.importorskip("fcntl")

    def refused(*arguments):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    @steps
    def cloned(target, request, source):
        assert request == 0x40049409
        assert os.fstat(target).st_size == 0
        os.pwrite(target, os.pread(source, SIZE, 0), 0)

    monkeypatch.setattr(fcntl, "ioctl", cloned if name == "clone" else refused)
    for key, function in (("range", "copy_file_range"), ("send", "sendfile")):
        if name == key:
            if not hasattr(os, function):
                pytest.skip(f"no os.{function} here")
            monkeypatch.setattr(os, function, steps(getattr(os, function)))
        else:
            monkeypatch.delattr(os, function, raising=False)
    if name == "pieces":
        monkeypatch.setattr(edits, "read_into", steps(edits.read_into))
    return steps


@st.composite
def edited(draw):
    """Bytes, edits of them in any order, and the bytes that those make."""
    old = draw(st.binary(max_size=200))
    ends = sorted(draw(st.sets(st.integers(0, len(old)), max_size=12)))
    changes = [
        Edit(start, draw(st.binary(min_size=stop - start, max_size=stop - start)))
        for start, stop in pairwise(ends)
        if draw(st.booleans())
    ]
    return old, draw(st.permutations(changes)), replaced(old, changes)


@given(edited(), st.integers(1, 40))
def test_the_bytes_of_the_edits_are_replaced_and_no_others(tmp_path_factory, case, chunk):
    old, changes, new = case
    folder = tmp_path_factory.mktemp("edits")
    (folder / "old").write_bytes(old)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edits, "CHUNK", chunk)
        write_edited(folder / "old", folder / "new", changes)
        assert (folder / "new").read_bytes() == new
        check_edited(folder / "old", folder / "new", changes)
    assert (folder / "old").read_bytes() == old
    assert sorted(path.name for path in folder.iterdir()) == ["new", "old"]


@given(edited(), st.integers(1, 40), st.data())
def test_the_first_byte_that_is_not_as_it_should_be_is_named(tmp_path_factory, case, chunk, data):
    old, changes, new = case
    if not new:
        return
    wrong = data.draw(st.sets(st.integers(0, len(new) - 1), min_size=1, max_size=3))
    folder = tmp_path_factory.mktemp("edits")
    (folder / "old").write_bytes(old)
    (folder / "new").write_bytes(bytes(b ^ (i in wrong) for i, b in enumerate(new)))
    within = any(offset <= min(wrong) < offset + len(data) for offset, data in changes)
    said = "does not have the new value" if within else "differs from that of"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edits, "CHUNK", chunk)
        with pytest.raises(FileError, match=f"new: its byte {min(wrong)} {said}"):
            check_edited(folder / "old", folder / "new", changes)


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1, 0])
def test_a_file_of_another_length_is_not_the_edited_one(old, folder, size):
    (folder / "new").write_bytes(content().ljust(size)[:size])
    with pytest.raises(FileError, match=f"^new: it has {size} bytes, and old has {SIZE}; delete"):
        check_edited(Path("old"), Path("new"), [])


def test_a_file_that_was_not_edited_is_found_out(old, folder):
    (folder / "new").write_bytes(content())
    check_edited(old, folder / "new", [])
    with pytest.raises(FileError, match="its byte 150000 does not have the new value"):
        check_edited(old, folder / "new", CHANGES[1:])


def test_each_way_of_copying_gives_the_same_bytes(old, folder, way):
    write_edited(old, folder / "new", CHANGES)
    assert (folder / "new").read_bytes() == replaced(content(), CHANGES)
    assert len(way) == (1 if way.name == "clone" else 5)
    assert old.read_bytes() == content()


@pytest.mark.parametrize("code", ["EXDEV", "ENOSYS", "EINVAL", "EOPNOTSUPP", "EPERM"])
@pytest.mark.parametrize("done", [0, 2])
def test_a_way_that_ends_is_gone_on_from_by_the_next(old, folder, monkeypatch, code, done):
    """Wherever it ended, and whether it raises or copies nothing any more."""
    monkeypatch.setattr(edits, "STRIDE", 1 << 16)
    monkeypatch.setattr(edits, "CHUNK", 1 << 16)
    counts = {}

    def ending(name, raising):
        def called(first, second, *rest):
            counts[name] = counts.get(name, 0) + 1
            if counts[name] > done:
                if raising:
                    raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))
                return 0
            return function(first, second, *rest)

        function = getattr(os, name)
        return called

    for name, raising in (("copy_file_range", True), ("sendfile", False)):
        if hasattr(os, name):
            monkeypatch.setattr(os, name, ending(name, raising))
    write_edited(old, folder / "new", CHANGES)
    assert (folder / "new").read_bytes() == replaced(content(), CHANGES)
    assert set(counts.values()) <= {done + 1}


@pytest.mark.parametrize(
    "changes",
    [
        [Edit(5, b"ab"), Edit(6, b"c")],
        [Edit(6, b"c"), Edit(5, b"ab")],
        [Edit(5, b"a"), Edit(5, b"a")],
        [Edit(-1, b"ab")],
    ],
)
def test_edits_that_make_no_sense_are_a_mistake_of_bncli(old, folder, changes):
    (folder / "new").write_bytes(b"there")
    with pytest.raises(ValueError, match=r"the edit at -?\d begins before"):
        write_edited(old, folder / "new", changes, force=True)
    with pytest.raises(ValueError, match="begins before"):
        check_edited(old, folder / "new", changes)
    assert (folder / "new").read_bytes() == b"there"
    assert names() == ["new", "old"]


@pytest.mark.parametrize("changes", [[Edit(SIZE, b"a")], [Edit(SIZE - 3, b"last")]])
def test_an_edit_past_the_end_is_of_a_file_that_was_cut(old, folder, changes):
    with pytest.raises(CorruptFileError, match=r"^old: it was removed or cut short while"):
        write_edited(Path("old"), folder / "new", changes)
    (folder / "new").write_bytes(content())
    with pytest.raises(CorruptFileError, match=r"^old: it was removed or cut short while"):
        check_edited(Path("old"), folder / "new", changes)


def test_edits_may_touch_and_be_empty(old, folder):
    changes = [Edit(2, b"b"), Edit(1, b"a"), Edit(1, b""), Edit(SIZE + 9, b"")]
    write_edited(old, folder / "new", changes)
    check_edited(old, folder / "new", changes)
    assert (folder / "new").read_bytes() == content()[:1] + b"ab" + content()[3:]


def test_a_file_that_is_there_needs_force(old, folder):
    (folder / "new").write_bytes(b"there")
    with pytest.raises(FileError, match=r"^new: it exists already; name another file, or let --fo"):
        write_edited(old, Path("new"), CHANGES)
    assert (folder / "new").read_bytes() == b"there"
    write_edited(old, Path("new"), CHANGES, force=True)
    assert (folder / "new").read_bytes() == replaced(content(), CHANGES)
    assert names() == ["new", "old"]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("remembered", [False, True])
def test_the_file_itself_is_not_overwritten_by_any_name(old, folder, force, remembered):
    (folder / "soft").symlink_to("old")
    (folder / "hard").hardlink_to(old)
    (folder / "deep").mkdir()
    for name in ("old", "./old", "deep/../old", "soft", "hard", str(old)):
        with (
            reading() if remembered else nullcontext(),
            pytest.raises(FileError, match=r"name another file\.$"),
        ):
            write_edited(Path("old"), Path(name), CHANGES, force=force)
    assert old.read_bytes() == content()
    assert names() == ["deep", "hard", "old", "soft"]


def test_what_the_call_read_is_not_overwritten(old, folder):
    (folder / "data").write_bytes(b"batches")
    with reading():
        read_bytes("data")
        with pytest.raises(FileError, match=r"^data: bncli read it in this call"):
            write_edited(old, Path("data"), CHANGES, force=True)
        write_edited(old, Path("new"), CHANGES)
        with pytest.raises(FileError, match=r"^old: bncli read it in this call"):
            write_edited(Path("new"), Path("old"), CHANGES, force=True)
    assert (folder / "data").read_bytes() == b"batches"


@pytest.mark.parametrize("force", [False, True])
def test_only_a_regular_file_is_replaced(old, folder, force):
    (folder / "sub").mkdir()
    os.mkfifo(folder / "pipe") if hasattr(os, "mkfifo") else None
    before = names()
    for name in ("sub", "pipe", os.devnull, "nowhere/new", "old/new", "n" * 300):
        with pytest.raises(FileError) as caught:
            write_edited(old, Path(name), CHANGES, force=force)
        assert str(caught.value).startswith(f"{name}: cannot be written")
    assert names() == before


def test_a_link_stays_a_link(old, folder):
    (folder / "deep").mkdir()
    (folder / "link").symlink_to("deep/new")
    write_edited(old, Path("link"), CHANGES)  # to a file that is not there yet
    assert (folder / "link").is_symlink()
    assert (folder / "deep" / "new").read_bytes() == replaced(content(), CHANGES)
    with pytest.raises(FileError, match=r"^link: it exists already"):
        write_edited(old, Path("link"), [])
    write_edited(old, Path("link"), [], force=True)
    assert (folder / "link").is_symlink()
    assert (folder / "deep" / "new").read_bytes() == content()


def test_another_name_of_the_replaced_file_keeps_the_old_bytes(old, folder):
    (folder / "new").write_bytes(b"there")
    (folder / "other").hardlink_to(folder / "new")
    write_edited(old, Path("new"), CHANGES, force=True)
    assert (folder / "other").read_bytes() == b"there"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o666])
def test_a_new_file_may_be_read_by_those_who_may_read_the_old_one(old, folder, mode):
    old.chmod(mode)
    umask = os.umask(0o022)
    try:
        write_edited(old, folder / "new", CHANGES)
    finally:
        os.umask(umask)
    assert (folder / "new").stat().st_mode & 0o7777 == mode & ~0o022


def test_only_a_file_that_is_replaced_waits_for_the_disk(old, folder, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    write_edited(old, folder / "new", CHANGES)
    assert not synced
    write_edited(old, folder / "new", CHANGES, force=True)
    assert len(synced) == 1


def failing(code):
    def fails(*arguments, **more):
        raise OSError(code, os.strerror(code))

    return fails


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_to_is_one_sentence(old, folder, monkeypatch, code):
    monkeypatch.setattr("tempfile.mkstemp", failing(code))
    with pytest.raises(FileError) as caught:
        write_edited(old, Path("new"), CHANGES)
    assert str(caught.value) == f"new: cannot be written ({os.strerror(code)})."
    assert names() == ["old"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_permissions_that_are_missing_are_one_sentence(old, folder):
    folder.chmod(0o500)
    try:
        with pytest.raises(FileError, match=r"^new: cannot be written \(Permission denied\)\.$"):
            write_edited(old, Path("new"), CHANGES)
    finally:
        folder.chmod(0o700)
    assert names() == ["old"]


@pytest.mark.parametrize("force", [False, True])
def test_a_disk_that_is_full_leaves_what_was_there(old, folder, way, force):
    """A limit on the length of files ends each way of copying where a full disk would."""
    resource = pytest.importorskip("resource")
    if force:
        (folder / "new").write_bytes(b"there")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(FileError) as caught:
            write_edited(old, Path("new"), CHANGES, force=force)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(caught.value) == f"new: cannot be written ({os.strerror(errno.EFBIG)})."
    assert names() == (["new", "old"] if force else ["old"])
    assert not force or (folder / "new").read_bytes() == b"there"


@pytest.mark.parametrize("change", ["cut", "written", "longer"])
@pytest.mark.parametrize("step", [1, 3])
def test_a_file_that_changes_meanwhile_is_not_copied(old, folder, way, change, step):
    def changing():
        if len(way) != (0 if way.name == "clone" else step):  # a clone is one step
            return
        with old.open("r+b") as stream:
            if change == "cut":
                stream.truncate(SIZE // 2)
            else:
                stream.seek(0 if change == "written" else SIZE)
                stream.write(b"x")

    way.before = changing
    with pytest.raises(CorruptFileError, match=r"^old: it was removed or cut short while bncli"):
        write_edited(Path("old"), Path("new"), CHANGES)
    assert names() == ["old"]


def test_a_file_that_is_gone_is_one_sentence(old, folder):
    with pytest.raises(FileError, match=r"^gone: it was removed"):
        write_edited(Path("gone"), Path("new"), [])
    with pytest.raises(FileError, match=r"^gone: it was removed"):
        check_edited(Path("gone"), old, [])
    with pytest.raises(FileError, match=r"^gone: it was removed"):
        check_edited(old, Path("gone"), [])
    (folder / "sub").mkdir()
    with pytest.raises(FileError, match=r"^sub: it cannot be read \(.*\)\.$"):
        write_edited(Path("sub"), Path("new"), [])
    (folder / "sub").rmdir()
    assert names() == ["old"]


@pytest.fixture
def model(folder):
    """Three shards, one of them in a folder below, and their index; one is small."""
    (folder / "old" / "below").mkdir(parents=True)
    paths = [folder / "old" / name for name in ("a", "b", "below/c", "index.json")]
    for seed, path in enumerate(paths):
        path.write_bytes(content(edits.SMALL + 1 if seed < 3 else 1000, seed))
    return paths


def bytes_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def no_clones(monkeypatch):
    monkeypatch.setattr(edits, "_clone", lambda source, target: False)


def test_a_model_of_several_files_is_written_where_it_changes(folder, model, monkeypatch):
    no_clones(monkeypatch)
    a, b, c, index = model
    written = write_model(Path("new"), {a: CHANGES, b: []}, [c, index])
    new = folder / "new"
    assert written.edited == {a: Path("new/a")}
    assert written.linked == {b: Path("new/b"), c: Path("new/below/c")}
    assert written.copied == {index: Path("new/index.json")}
    assert bytes_of(new) == bytes_of(folder / "old") | {"a": replaced(a.read_bytes(), CHANGES)}
    for old, place in (written.edited | written.linked | written.copied).items():
        assert old.samefile(place) == (old in written.linked)
        check_edited(old, place, CHANGES if old == a else [])
    assert new.stat().st_mode == (folder / "old").stat().st_mode
    assert names() == ["new", "old"]


def test_what_can_be_cloned_is_not_linked(folder, model, monkeypatch):
    a, *rest = model
    monkeypatch.setattr(edits, "_can_clone", lambda path, target: True)
    written = write_model(Path("new"), {a: CHANGES}, rest)
    assert not written.linked
    assert [*written.copied] == rest


def test_what_can_be_neither_cloned_nor_linked_is_copied(folder, model, monkeypatch):
    no_clones(monkeypatch)
    monkeypatch.setattr(Path, "hardlink_to", failing(errno.EPERM))
    a, *rest = model
    written = write_model(Path("new"), {a: CHANGES}, rest)
    assert [*written.copied] == rest
    assert bytes_of(folder / "new") == bytes_of(folder / "old") | {
        "a": replaced(a.read_bytes(), CHANGES)
    }


def test_links_of_a_download_are_followed(folder, model, monkeypatch):
    no_clones(monkeypatch)
    (folder / "blobs").mkdir()
    a, b, *rest = model
    for path in (a, b):
        path.rename(folder / "blobs" / path.name)
        path.symlink_to(folder / "blobs" / path.name)
    written = write_model(Path("new"), {a: CHANGES}, [b, *rest])
    assert not any(path.is_symlink() for path in (folder / "new").rglob("*"))
    assert written.linked[b].samefile(b)
    assert bytes_of(folder / "new")["a"] == replaced(a.read_bytes(), CHANGES)


def test_a_folder_with_anything_in_it_is_not_written_to(folder, model):
    a, *rest = model
    for name, said in (
        ("old", "it is not empty; name another folder"),
        ("old/a", "it is a file; name a folder"),
        ("nowhere/new", "the folder 'nowhere' does not exist"),
        ("n" * 300, "File name too long"),
    ):
        with pytest.raises(FileError) as caught:
            write_model(Path(name), {a: CHANGES}, rest)
        assert str(caught.value).startswith(f"{name}: cannot be written")
        assert said in str(caught.value)
    assert names() == ["old"]
    (folder / "new").mkdir(mode=0o700)
    write_model(Path("new"), {a: CHANGES}, rest)
    assert names() == ["new", "old"]
    assert (folder / "new").stat().st_mode & 0o777 == 0o700


def test_a_model_that_cannot_be_written_leaves_nothing(folder, model, monkeypatch):
    a, b, *rest = model
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdopen", failing(errno.ENOSPC))
        with pytest.raises(FileError) as caught:
            write_model(Path("new"), {a: CHANGES, b: CHANGES}, rest)
    assert str(caught.value) == f"new/a: cannot be written ({os.strerror(errno.ENOSPC)})."
    b.write_bytes(b"cut")
    with pytest.raises(CorruptFileError, match=f"^{b}: it was removed or cut short"):
        write_model(Path("new"), {a: CHANGES, b: CHANGES}, rest)
    with pytest.raises(ValueError, match="named twice"):
        write_model(Path("new"), {a: CHANGES}, [Path("old/below/../a"), *rest])
    assert names() == ["old"]


KILLED = """
import sys, shutil
from pathlib import Path
from bncli.files import edits
from bncli.files.edits import Edit, write_edited, write_model

edits.STRIDE = 1 << 20
changes = [Edit(0, b"new"), Edit(int(sys.argv[1]) - 3, b"new")]
old, new, replaced, model = map(Path, ("old", "new", "replaced", "model"))
print("ready", flush=True)
while True:
    write_edited(old, new, changes)
    new.unlink()
    write_edited(old, replaced, changes, force=True)
    write_model(model, {old: changes}, [Path("index")])
    model.rename("removed")
    shutil.rmtree("removed")
    write_edited(old, replaced, [], force=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_process_that_is_killed_leaves_whole_files_alone(folder):
    """Killed 20 times while it writes 20 MB, and until once it was in the middle of that."""
    size = 20_000_000
    old = content(size)
    new = b"new" + old[3:-3] + b"new"
    for name in ("old", "replaced"):
        (folder / name).write_bytes(old)
    (folder / "index").write_bytes(b"{}")
    unfinished = 0
    for number in range(200):
        if number >= 20 and unfinished:
            break
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(size)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout.readline() == b"ready\n"
            time.sleep(random.uniform(0, 0.15))
            process.kill()
        assert process.returncode == -signal.SIGKILL
        assert (folder / "replaced").read_bytes() in (old, new)
        if (folder / "new").exists():
            assert (folder / "new").read_bytes() == new
            (folder / "new").unlink()
        if (folder / "model").exists():
            assert bytes_of(folder / "model") == {"old": new, "index": b"{}"}
            subprocess.run(["rm", "-r", folder / "model"], check=True)
        left = [path for path in folder.iterdir() if path.name.startswith((".", "removed"))]
        unfinished += any(path.name.startswith(".") for path in left)
        subprocess.run(["rm", "-rf", *left], check=True)
    assert unfinished
    assert (folder / "old").read_bytes() == old


@pytest.mark.parametrize("how", ["written to", "replaced"])
def test_a_file_that_is_another_since_it_was_read_is_refused(old, how):
    with reading():
        read_bytes(old)
        if how == "replaced":
            Path("later").write_bytes(content(seed=1))
            Path("later").replace(old)
        else:
            old.write_bytes(content(seed=1))
        with pytest.raises(CorruptFileError, match="written to or replaced after bncli had read"):
            write_edited(old, Path("new"), CHANGES)
        with pytest.raises(CorruptFileError, match="written to or replaced after bncli had read"):
            write_model(Path("folder"), {}, [old])
    assert names() == ["old"]
