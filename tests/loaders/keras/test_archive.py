@pytest.mark.parametrize("name", ["bn/moving_mean", "bn.running_mean"])
def test_a_tensor_may_be_named_by_its_layer(name, path):
    path.write_bytes(archive(WEIGHTS, CONFIG))
    assert open_tensor(f"{path}::{name}").name == MEAN
    with pytest.raises(MissingTensorError, match="there is no tensor 'bn/nothing'"):
        open_tensor(f"{path}::bn/nothing")
