"""Which files a call means: patterns in natural order, none twice, two or more."""

from __future__ import annotations

from pathlib import Path

import pytest

from bncli.commands.compare_checkpoints.given import Given, files_given, part_in
from bncli.errors import FileError, UsageError
from tests.changes.files import made, norm


@pytest.fixture
def files(folder):
    for number in (1, 2, 10):
        Path(f"epoch{number}.pt").write_bytes(bytes([number]))
    Path("latest.pt").symlink_to("epoch10.pt")
    return folder


def specs(*given: str, target: str | None = None) -> list[str]:
    return [each.spec for each in files_given(given, target)[0]]


def test_a_pattern_is_in_natural_order_and_a_link_counts_once(files):
    assert specs("epoch*.pt") == ["epoch1.pt", "epoch2.pt", "epoch10.pt"]
    assert specs("*.pt") == ["epoch1.pt", "epoch2.pt", "epoch10.pt"]
    assert specs("epoch2.pt", "epoch*.pt") == ["epoch2.pt", "epoch1.pt", "epoch10.pt"]
    assert specs("epoch1.pt::a", "epoch1.pt::b") == ["epoch1.pt::a", "epoch1.pt::b"]


def test_the_target_is_none_of_the_files(files):
    found, target = files_given(["*.pt"], "epoch10.pt")
    assert [each.spec for each in found] == ["epoch1.pt", "epoch2.pt"]
    assert target == Given(Path("epoch10.pt"), "")
    assert specs("epoch1.pt", target="epoch2.pt") == ["epoch1.pt"]


@pytest.mark.parametrize(
    ("given", "target", "said"),
    [
        (["epoch1.pt"], None, "takes two files or more; for epoch1.pt alone, use bncli inspect"),
        (["epoch[2].pt"], None, "is one file, epoch2.pt; compare-checkpoints takes two or more"),
        (["epoch1.pt", "./epoch1.pt"], None, "epoch1.pt is given twice; name another file"),
        (["epoch10.pt", "latest.pt"], None, "epoch10.pt and latest.pt are the same file"),
        (["epoch1.pt"], "epoch1.pt", "epoch1.pt is given twice"),
        (["latest.p*"], "epoch10.pt", "--with epoch10.pt: give at least one file beside it."),
        (["epoch1.pt"], "epoch*.pt", "--with epoch*.pt: 3 files fit this pattern"),
        (["-", "epoch1.pt"], None, "reads files, not standard input"),
    ],
)
def test_what_cannot_be_compared(files, given, target, said):
    with pytest.raises(UsageError) as raised:
        files_given(given, target)
    assert said in str(raised.value)


def test_a_pattern_without_files(files):
    with pytest.raises(FileError, match="no file fits this pattern"):
        files_given(["nothing*.pt", "epoch1.pt"], None)


@pytest.mark.parametrize(
    ("part", "meant"),
    [
        ("", ""),
        ("state_dict", "state_dict"),
        ("ema", "state_dict.ema"),
        ("state_dict.ema", "state_dict.ema"),
        ("bn", "bn"),
        ("em", "em"),
    ],
)
def test_a_part_may_be_the_end_of_one(part, meant):
    file = made(norm("state_dict.model.bn", 3) | norm("state_dict.ema.bn", 3))
    assert part_in(file, part) == meant
