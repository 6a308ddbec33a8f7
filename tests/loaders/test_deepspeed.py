"""DeepSpeed's folders, as its engine lays them out."""

import pytest
import torch
from torch import nn

from bncli.errors import CorruptFileError, FileError, UnsupportedFileError
from bncli.loaders import open_file
from bncli.state_dict import batch_norm_layers, read_state

from .files import assert_same

MODEL = "mp_rank_00_model_states.pt"


def net(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3))
    model(torch.randn(4, 2, 9, 9))
    return model


def states(module):
    """What the engine writes beside the model's states."""
    return {
        "module": module,
        "buffer_names": [name for name in module if "running" in name],
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}},
        "param_shapes": [{name: value.shape for name, value in module.items()}],
        "ds_config": {"zero_optimization": {"stage": 2}},
        "global_steps": 10,
    }


def without_parameters(model):
    """The state_dict under ZeRO's third stage: the parameters are placeholders of no elements."""
    parameters = dict(model.named_parameters())
    return {
        name: torch.empty(0) if name in parameters else value
        for name, value in model.state_dict().items()
    }


def written(folder, files, tag="global_step10"):
    (folder / tag).mkdir(parents=True)
    for name, value in files.items():
        torch.save(value, folder / tag / name)
    (folder / "latest").write_text(tag)
    return folder


def test_the_model_by_the_folder_or_any_file_of_it(tmp_path):
    state = net().state_dict()
    partition = {"optimizer_state_dict": {"fp32_flat_groups": [torch.ones(9)]}}
    name = "zero_pp_rank_0_mp_rank_00_optim_states.pt"
    folder = written(tmp_path / "x", {MODEL: states(state), name: partition})
    step = folder / "global_step10"
    for path in (folder, folder / "latest", step, step / MODEL, step / name):
        file = open_file(path)
        assert (file.path, file.container) == (step, "deepspeed")
        assert list(file.tensors) == list(state)
        assert_same(file.tensors, state)
        assert not file.skipped
    assert [layer.name for layer in batch_norm_layers(file)] == ["1"]


def test_the_last_step_counts_and_the_others_have_their_folders(tmp_path):
    folder = written(tmp_path, {MODEL: states(net(1).state_dict())}, "global_step5")
    written(folder, {MODEL: states(net(2).state_dict())})
    assert_same(open_file(folder).tensors, net(2).state_dict())
    assert_same(open_file(folder / "global_step5").tensors, net(1).state_dict())


def test_zeros_third_stage_leaves_the_buffers(tmp_path):
    model = net()
    files = {
        f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt": states(without_parameters(net(rank)))
        for rank in (0, 1)
    }
    file = open_file(written(tmp_path, files))
    assert_same(file.tensors, dict(model.named_buffers()))
    (layer,) = batch_norm_layers(file)
    state = read_state(layer)
    assert (layer.name, state.weight, state.bias) == ("1", None, None)
    assert state.running_var.tolist() == model[1].running_var.tolist()
    parameters = {name for name, _ in model.named_parameters()}
    other = "zero_pp_rank_1_mp_rank_00_model_states.pt"
    assert set(file.skipped) == {*parameters, other}
    assert file.skipped["1.weight"].startswith("ZeRO keeps its values in partitions of all ranks")
    assert file.skipped[other] == "it has the buffers of another rank; those of the first are read"


def test_ranks_of_tensor_parallelism_stand_before_the_names(tmp_path):
    files = {f"mp_rank_0{rank}_model_states.pt": states(net(rank).state_dict()) for rank in (0, 1)}
    file = open_file(written(tmp_path, files))
    assert [layer.name for layer in batch_norm_layers(file)] == ["mp_rank_00.1", "mp_rank_01.1"]
    expected = {f"mp_rank_01.{name}": value for name, value in net(1).state_dict().items()}
    assert_same(file.tensors, expected)


@pytest.mark.parametrize("rank", ["", "-model_00"])
def test_a_pipeline_has_a_file_a_layer(rank, tmp_path):
    files = {
        f"layer_0{number}{rank}-model_states.pt": layer.state_dict()
        for number, layer in enumerate(net())
    }
    file = open_file(written(tmp_path, {MODEL: {"module": None, "epoch": 1}} | files))
    assert_same(
        file.tensors, {f"layer_0{name}": value for name, value in net().state_dict().items()}
    )
    assert [layer.name for layer in batch_norm_layers(file)] == ["layer_01"]


def test_a_file_called_latest_that_names_no_step(tmp_path):
    folder = written(tmp_path / "a", {MODEL: states(net().state_dict())})
    for tag in (
        "../a/global_step10",
        "global_step9",
        "",
        "x" * 9999,
        str(folder / "global_step10"),
    ):
        (folder / "latest").write_text(tag)
        with pytest.raises(
            UnsupportedFileError, match=r"name the folder of a step \(global_step10"
        ):
            open_file(folder)
    (folder / "latest").unlink()
    assert open_file(folder / "global_step10").tensors


def test_what_is_no_folder_of_deepspeed(tmp_path):
    (tmp_path / "latest").write_text("global_step10")
    with pytest.raises(FileError, match="it is a directory without a checkpoint in it"):
        open_file(tmp_path)
    torch.save(net().state_dict(), tmp_path / "x_states.pt")
    assert open_file(tmp_path / "x_states.pt").container == "torch-zip"
    folder = written(tmp_path / "x", {MODEL: states(net().state_dict())})
    with pytest.raises(FileError, match="there is no such file"):
        open_file(folder / "global_step10" / "mp_rank_01_model_states.pt")


def test_the_first_rank_must_be_there_and_whole(tmp_path):
    name = "zero_pp_rank_1_mp_rank_00_model_states.pt"
    folder = written(tmp_path, {name: states(net().state_dict())})
    with pytest.raises(FileError, match="the model's states of the first rank are missing"):
        open_file(folder)
    (folder / "global_step10" / MODEL).write_bytes(b"PK\3\4 cut")
    with pytest.raises(CorruptFileError):
        open_file(folder)
