"""The call of a part, without secrets, and that of another part of the same whole."""

import numpy as np
import pytest

from bncli.files.reading import reading
from bncli.loaders.part_calls import made_with
from bncli.loaders.parts import made_part

SECRETS = ("user", "secret", "token", "abc")


def test_no_secret_of_a_url_is_kept(save):
    url = "https://user:secret@host.example/x.npy?token=abc"
    save("x.npy", np.ones((2, 3)))
    arguments = ("compute", url, f"{url}::a", f"--state={url}::bn", "--shard", "auto", "-o", "a=b")
    with reading(arguments=arguments):
        part = made_part((2, 3), ["x.npy"], ["x.npy"], {"--state": f"{url}::bn", "--dtype": None})
    assert part.call[4:] == ("--shard", "2/3", "-o", "a=b")
    assert part.call[1].startswith("https://host.example/x.npy")
    assert part.flags["--state"].endswith("::bn")
    assert not any(word in str(part) for word in SECRETS)


@pytest.mark.parametrize(
    ("typed", "again"),
    [
        ("--shard=1/3 --save-stats=parts/part-001.npz", "--shard=0/3 --save-stats=parts/part-000."),
        ("--shard 1/3 -o run1/part.json", "--shard 0/3 -o run1/FILE.json"),
        ("--shard 1/3 --save-stats 2024-1.npz", "--shard 0/3 --save-stats 2024-0.npz"),
        ("--shard auto --save-stats x1.npz", "--shard 0/3 --save-stats x0.npz"),
    ],
)
def test_the_call_that_makes_a_missing_part(save, typed, again):
    save("in 1.npy", np.ones((2, 3)))
    with reading(arguments=("compute", "in *.npy", *typed.split())):
        part = made_part((1, 3), ["in 1.npy"], ["in 1.npy"], {})
    assert f"make shard 0/3 with: bncli compute 'in *.npy' {again}" in made_with([0], part)
