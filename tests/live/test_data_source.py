"""The data that the user names: loaders of many kinds, read again and again, and what is none."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from bncli.errors import BncliError, FileError, ModelError, UsageError
from bncli.live.data_source import EmptyShardError, batch_crc, grouped, open_data

DATA = """
    import numpy as np
    import torch
    from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

    torch.manual_seed(0)
    X = torch.randn(10, 3, 4, 4)
    Y = torch.arange(10)
    pairs = TensorDataset(X, Y)
    loader = DataLoader(pairs, batch_size=4)
    shuffled = DataLoader(pairs, batch_size=4, shuffle=True)
    batches = [X[:5], X[5:]]
    arrays = [X[:5].numpy(), X[5:].double().numpy()]

    def generator():
        for at in range(0, 10, 5):
            yield X[at:at + 5], Y[at:at + 5]

    def augmented():
        for x in batches:
            yield x + torch.randn_like(x) + np.random.randn()

    class Words(Dataset):
        def __len__(self):
            return 6
        def __getitem__(self, i):
            return {"pixel_values": X[i], "labels": i, "mask": torch.ones(4, dtype=torch.bool)}

    words = DataLoader(Words(), batch_size=3)

    class Stream(IterableDataset):
        def __iter__(self):
            yield from X

    streamed = DataLoader(Stream(), batch_size=4)

    class Batches:
        def __iter__(self):
            return iter(batches)

    class ByIndex:
        def __getitem__(self, i):
            return batches[i]

    def validation():
        return loader
"""


@pytest.fixture
def data(code):
    """Data of every kind, by the name in its file."""
    code("data.py", DATA)
    return lambda name, *how, **more: open_data([f"data.py:{name}"], *how, **more)


def inputs(source) -> list[torch.Tensor]:
    return [batch.args[0] for batch in source]


@pytest.mark.parametrize(
    ("name", "sizes", "length"),
    [
        ("loader", [4, 4, 2], 3),
        ("shuffled", [4, 4, 2], 3),
        ("batches", [5, 5], 2),
        ("arrays", [5, 5], 2),
        ("generator", [5, 5], None),
        ("validation", [4, 4, 2], None),
        ("augmented", [5, 5], None),
        ("streamed", [4, 4, 2], None),
        ("Batches", [5, 5], None),
        ("ByIndex", [5, 5], None),
    ],
)
def test_iterables_of_batches(data, name, sizes, length):
    source = data(name)
    assert source.label == f"data.py:{name}"
    assert source.length == length
    first = list(source)
    assert [batch.samples for batch in first] == sizes
    assert [batch.label for batch in first[:1]] == [f"batch 1 of data.py:{name}"]
    assert source.length == len(sizes)
    crcs = [batch_crc(batch) for batch in first]
    for batch in first:
        batch.args[0].zero_()  # as a layer in place might
    assert [batch_crc(batch) for batch in source] == crcs


def test_a_dictionary_as_keyword_arguments_or_by_key(data):
    for batch in data("words"):
        assert sorted(batch.kwargs) == ["labels", "mask", "pixel_values"]
        assert batch.samples == 3
    for batch in data("words", "pixel_values"):
        assert batch.args[0].equal(batch.whole["pixel_values"])


def test_random_numbers_of_the_data_are_apart(data):
    """Shuffling and augmentation are alike in all passes, and take nothing from the model's."""
    for name in ("shuffled", "augmented"):
        source = data(name)
        torch.manual_seed(7)
        alone = [torch.rand(()) for _ in range(3)]
        torch.manual_seed(7)
        seen = []
        for number, batch in enumerate(source):
            seen.append(batch.args[0])
            assert torch.rand(()) == alone[number]
        again = inputs(data(name))
        assert all(map(torch.equal, seen, again))
        other = inputs(data(name, seed=1))
        assert not all(map(torch.equal, seen, other))


def test_only_the_first_batches(data):
    source = data("loader", batches=2)
    assert source.length == 2
    assert len(list(source)) == len(list(source)) == 2
    source = data("generator", batches=1)
    assert len(list(source)) == len(list(source)) == 1
    assert data("loader", batches=9).length == 3


def test_conversion(data):
    assert {x.dtype for x in inputs(data("arrays"))} == {torch.float32, torch.float64}
    assert {x.dtype for x in inputs(data("arrays", dtype="float16"))} == {torch.float16}


def test_files_and_loaders_in_the_order_given(data, save):
    x = np.ones((4, 3), np.float32)
    save("b2.npy", x * 2)
    save("b10.npy", x * 10)
    source = open_data(["b*.npy", "data.py:batches", "b2.npy"], batches=4)
    assert source.length == 4
    assert [batch.label for batch in source] == [
        "b2.npy", "b10.npy", "batch 1 of data.py:batches", "batch 2 of data.py:batches",
    ]  # fmt: skip
    assert source.label == "b*.npy data.py:batches b2.npy"


def test_workers(code, capfd):
    code("work.py", """
        import torch
        from torch.utils.data import DataLoader, Dataset

        class Images(Dataset):
            def __init__(self, bad=None):
                self.bad = bad
            def __len__(self):
                return 4
            def __getitem__(self, i):
                print("worker", i, flush=True)
                if i == self.bad:
                    raise ValueError("no such image")
                return torch.full((3,), float(i))

        good = DataLoader(Images(), batch_size=2, num_workers=1)
        bad = DataLoader(Images(3), batch_size=2, num_workers=1)
    """)  # fmt: skip
    first = inputs(open_data(["work.py:good"]))
    assert torch.cat(first)[:, 0].tolist() == [0, 1, 2, 3]
    with pytest.raises(ModelError) as caught:
        inputs(open_data(["work.py:bad"]))
    assert str(caught.value) == (
        "work.py:13: reading batch 2 of work.py:bad raised ValueError: no such image."
    )
    assert capfd.readouterr().out == ""


# ------------------------------------------------------------------ what is no data


def refusal(specs: list[str], error: type[BncliError] = ModelError, **how: object) -> str:
    """The sentence for data, on opening or in the first two passes."""
    with pytest.raises(error) as caught:  # noqa: PT012  # wherever it is found
        source = open_data(specs, **how)
        list(source)
        list(source)
    assert str(caught.value).isprintable()
    return str(caught.value)


NO_ITERABLE = "not an iterable of batches such as a DataLoader."
ONCE = "read once only; name the function that makes it."
NO_DATA = {
    "data = (i for i in ())": f"it is a generator, which can be {ONCE}",
    "data = iter([])": f"it is a list_iterator, which can be {ONCE}",
    "data = []": "it gives no batches.",
    "def data(): return iter([])": "it gives no batches.",
    "data = 3": f"it is an int, {NO_ITERABLE}",
    "data = 'text'": f"it is a str, {NO_ITERABLE}",
    "data = {'x': 1}": f"it is a dict, {NO_ITERABLE}",
    "import torch; data = torch.ones(3, 2)": f"it is a torch.Tensor, {NO_ITERABLE}",
    "def data(): return None": f"it gives None, {NO_ITERABLE}",
    "import torch\ndef data(): return torch.ones(3, 2)": f"it gives a torch.Tensor, {NO_ITERABLE}",
    "def data(root, size): ...": (
        "it needs root, size; name a function without arguments that gives the batches."
    ),
    "import torch; data = torch.utils.data.TensorDataset(torch.ones(3, 2))": (
        "it is a Dataset, which gives samples and not batches; name a DataLoader over it."
    ),
    "import torch; once = iter([torch.ones(1, 2)] * 3)\ndef data(): return once": (
        f"it gave 3 batches when it was first read and no batches now, so it can be {ONCE}"
    ),
}
"""What is named, and what its sentence says after the name."""


@pytest.mark.parametrize(("text", "said"), NO_DATA.items(), ids=range(len(NO_DATA)))
def test_what_is_no_data(code, text, said):
    code("my.py", text)
    assert refusal(["my.py:data"]) == f"my.py:data: {said}"


def test_a_loader_with_fewer_batches_the_second_time(code):
    code("fewer.py", """
        import torch
        calls = []
        def data():
            calls.append(1)
            return [torch.ones(2, 3)] * (3 - len(calls))
    """)  # fmt: skip
    assert refusal(["fewer.py:data"]).startswith("fewer.py:data: it gave 2 batches when it was")
    with pytest.raises(ModelError, match="it gives no batches"):
        list(open_data(["fewer.py:data"]))


def test_a_pass_that_was_left_early_says_nothing_about_the_number(data):
    source = data("generator")
    for _ in source:
        break
    assert source.length is None
    assert len(list(source)) == 2


RAISING = {
    "yield X\n    raise OSError('disk\\nfull')": (
        "bad.py:5: reading batch 2 of bad.py:data raised OSError: disk full."
    ),
    "yield X\n    raise SystemExit(3)": (
        "bad.py:5: reading batch 2 of bad.py:data ended the process (SystemExit: 3)."
    ),
    "yield X\n    yield 'text'": (
        "batch 2 of bad.py:data: it is a str; a batch is a tensor, a tuple with the input first, "
        "or a dictionary."
    ),
    "return 1 / 0": "bad.py:4: iterating bad.py:data raised ZeroDivisionError: division by zero.",
}


@pytest.mark.parametrize(("body", "said"), RAISING.items(), ids=range(len(RAISING)))
def test_data_that_raise(code, body, said):
    code("bad.py", f"import torch\nX = torch.ones(2, 3)\ndef data():\n    {body}\n")
    assert refusal(["bad.py:data"]) == said


def test_an_interrupt_passes(code):
    code("slow.py", "def data():\n    yield from ()\n    raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        list(open_data(["slow.py:data"]))


def test_what_does_not_go_together(data, save):
    save("images.npy", np.ones((4, 3)))
    assert refusal(["data.py:loader"], UsageError, batch_size=2) == (
        "--batch-size cuts files, but data.py:loader gives batches of its own; leave it out."
    )
    assert refusal([], UsageError) == "no data are given: name files or a loader with --data."
    assert refusal(["data.py"], UsageError).startswith(
        "data.py: name the data in it, such as data."
    )
    assert refusal(["data.py:lodr"]).startswith(
        "data.py: there is no 'lodr' in it; did you mean lo"
    )
    assert refusal(["imags.npy"], FileError) == (
        "imags.npy: there is no such file; did you mean images.npy?"
    )
    assert refusal(["data.py:words"], input_key="image") == (
        "batch 1 of data.py:words: there is no 'image' in it; it has pixel_values, labels, mask."
    )


def test_prints_of_the_data_go_aside(code, capsys):
    code("loud.py", """
        import torch
        print("import")
        def data():
            try:
                print("begin")
                yield torch.ones(2, 3)
                yield torch.ones(2, 3)
            finally:
                print("end")
    """)  # fmt: skip
    for _ in open_data(["loud.py:data"]):
        sys.stdout.write("report\n")
        break
    assert capsys.readouterr() == ("report\n", "import\nbegin\nend\n")


def test_a_loader_that_does_not_know_its_length(code):
    code("odd.py", """
        import torch
        class Odd:
            def __len__(self):
                raise RuntimeError("not yet")
            def __iter__(self):
                return iter([torch.ones(2, 3)])
        data = Odd()
    """)  # fmt: skip
    source = open_data(["odd.py:data"])
    assert source.length is None
    assert len(list(source)) == source.length == 1


# ---------------------------------------------------------------------------- shards

X = np.arange(9 * 3 * 4, dtype=np.float32).reshape(9, 3, 4)


@pytest.mark.parametrize(("most", "n"), [(None, 2), (None, 3), (4, 3), (5, 4)])
def test_shards_share_out_what_all_data_give(data, save, most, n):
    """Files, a loader without a length, and files again: each batch goes to one shard."""
    for i in range(3):
        save(f"b{i}.npy", X[3 * i : 3 * i + 3])
    specs = ["b*.npy", "data.py:validation", "b2.npy"]
    whole = list(open_data(specs, batches=most))
    for k in range(n):
        source = open_data(specs, batches=most, shard=(k, n))
        for _ in range(2):  # every pass sees the same
            found = list(source)
            assert [batch.number for batch in found] == list(range(k, len(whole), n))
            for batch in found:
                assert batch.label == whole[batch.number].label
                assert batch.args[0].equal(whole[batch.number].args[0])
        assert (source.length, source.total) == (len(found), len(whole))


def test_batches_of_others_are_dropped_before_they_are_looked_at(code):
    code("odd.py", "import torch\ndata = ['no batch', torch.ones(4, 3), 'none either']")
    (batch,) = open_data(["odd.py:data"], shard=(1, 3))
    assert (batch.number, batch.label) == (1, "batch 2 of odd.py:data")
    with pytest.raises(ModelError):
        list(open_data(["odd.py:data"], shard=(0, 3)))


def test_a_shard_without_a_batch(save, data):
    save("x.npy", X[:4])
    source = open_data(["x.npy"], shard=(1, 2))
    with pytest.raises(EmptyShardError, match="shard 1/2 has nothing to do, because there is only"):
        source.check_shard()
    late = data("augmented", shard=(2, 3))
    late.check_shard()  # nobody knows yet
    with pytest.raises(EmptyShardError, match="there are only 2 batches") as caught:
        list(late)
    assert caught.value.total == 2


def test_what_shards_read(save, data):
    for i in range(3):
        save(f"b{i}.npy", X[:5])
    source = open_data(["b*.npy", "data.py:loader"], None, shard=(1, 2))
    list(source)
    assert source.inputs == ["b0.npy", "b1.npy", "b2.npy", "data.py:loader"]
    assert source.own_inputs == ["b1.npy", "data.py:loader"]
    cut = open_data(["b*.npy"], batch_size=3, batches=5, shard=(3, 4))
    list(cut)
    assert cut.own_inputs == ["b1.npy"]
    assert (cut.length, cut.total) == (1, 5)


def test_specs_are_grouped_in_their_order(save):
    specs = ["a.npy", "b.npy", "m.py:f", "pkg.mod:g", "c.npy"]
    assert [*map(str, grouped(specs))] == [
        "('a.npy', 'b.npy')",
        "m.py:f",
        "pkg.mod:g",
        "('c.npy',)",
    ]
