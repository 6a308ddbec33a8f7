"""`--shard K/N` and `auto`: which inputs a task takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncli.arguments.shard import Shard, no_inputs, parse_shard
from bncli.errors import UsageError

SLURM = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "4"}


@given(st.lists(st.integers()), st.integers(1, 9))
def test_every_input_belongs_to_one_shard(inputs, n):
    shards = [Shard(k, n).of(inputs) for k in range(n)]
    for number, each in enumerate(inputs):
        assert shards[number % n][number // n] == each
    assert sum(map(len, shards)) == len(inputs)


@pytest.mark.parametrize("text", ["0/1", "3/16", " 15/16 "])
def test_shards_are_typed_as_k_of_n(text):
    assert str(parse_shard(text)) == text.strip()


def test_no_flag_means_no_shard_whatever_the_environment_says():
    assert parse_shard(None, {"RANK": "1", "WORLD_SIZE": "2", **SLURM}) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("4/4", "from 0 to 3"),
        ("-1/4", "from 0 to 3"),
        ("0/0", "at least one shard"),
        ("3", "write K/N"),
        ("1/2/3", "write K/N"),
        ("1.5/2", "write K/N"),
        ("", "--shard '': write K/N"),
        ("AUTO", "write K/N"),
    ],
)
def test_what_is_no_shard_is_refused(text, said):
    with pytest.raises(UsageError, match=said):
        parse_shard(text, {})


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"RANK": "2", "WORLD_SIZE": "3"}, "2/3"),
        ({**SLURM, "SLURM_ARRAY_TASK_STEP": "2"}, "3/4"),
        ({**SLURM, "SLURM_ARRAY_TASK_ID": "1"}, "0/4"),
        ({**SLURM, "SLURM_ARRAY_TASK_ID": "3"}, "2/4"),
    ],
)
def test_auto_takes_the_schedulers_numbers(environment, expected):
    assert str(parse_shard("auto", environment)) == expected


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "neither RANK and WORLD_SIZE nor SLURM_ARRAY_TASK_ID"),
        (
            {"RANK": "0", "WORLD_SIZE": "2", **SLURM},
            "SLURM_ARRAY_TASK_ID is set, and so are RANK and WORLD_SIZE; they",
        ),
        ({"WORLD_SIZE": "2", **SLURM}, "SLURM_ARRAY_TASK_ID is set, and so is WORLD_SIZE; they"),
        ({"RANK": "0"}, "WORLD_SIZE is not set"),
        ({"RANK": "two", "WORLD_SIZE": "3"}, "RANK is 'two'"),
        ({"RANK": "3", "WORLD_SIZE": "3"}, "from 0 to 2"),
        ({"SLURM_ARRAY_TASK_ID": "7"}, "SLURM_ARRAY_TASK_MIN is not set"),
        ({**SLURM, "SLURM_ARRAY_TASK_COUNT": "1"}, "submit the whole array again"),
        ({**SLURM, "SLURM_ARRAY_TASK_MAX": "7"}, "only a part was submitted"),
        (SLURM, "would be shard 6"),  # an array with holes, such as 1,3,5,7
        (
            {**SLURM, "SLURM_ARRAY_TASK_STEP": "4"},
            "task 7 is not one of this array's, which begins at 1 in steps of 4; give",
        ),
    ],
)
def test_auto_says_what_the_environment_lacks(environment, said):
    with pytest.raises(UsageError, match=said):
        parse_shard("auto", environment)


def test_a_shard_without_inputs_says_how_many_there_are():
    assert no_inputs(Shard(3, 4), ["a"]) == (
        "shard 3/4 has nothing to do, because there is only 1 input"
    )
