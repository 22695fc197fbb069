"""What files of weights Inception and I3D ask for, and a network small enough to know its features."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from vdit.errors import UserError
from vdit.models.features import i3d, inception
from vdit.models.features.convnets import Network, load, max_pool, mean_pool, tensor_shapes


def test_the_tensors_are_those_of_the_published_networks():
    shapes = tensor_shapes(inception.NETWORK)
    assert len(shapes) == 94 * 5
    assert shapes["Conv2d_1a_3x3.conv.weight"] == (32, 3, 3, 3)
    assert shapes["Mixed_6c.branch7x7dbl_4.conv.weight"] == (160, 160, 7, 1)
    assert shapes["Mixed_7c.branch3x3dbl_3b.conv.weight"] == (384, 384, 3, 1)
    shapes = tensor_shapes(i3d.NETWORK)
    assert len(shapes) == 57 * 5 + 2
    assert shapes["Conv3d_1a_7x7.conv3d.weight"] == (64, 3, 7, 7, 7)
    assert shapes["Mixed_5c.b2b.bn.running_var"] == (128,)
    assert shapes["logits.conv3d.weight"] == (400, 1024, 1, 1, 1)


def test_pools_count_what_is_there():
    x = np.arange(1, 10, dtype=np.float32).reshape(1, 3, 3, 1)
    np.testing.assert_allclose(mean_pool(x, (3, 3), "SAME")[0, ..., 0], [[3, 3.5, 4], [4.5, 5, 5.5], [6, 6.5, 7]])
    np.testing.assert_array_equal(
        max_pool(-x, (3, 3), (1, 1), "SAME")[0, ..., 0], [[-1, -1, -2], [-1, -1, -2], [-4, -4, -5]]
    )


def small(unit, x):
    return unit(unit(x, "a", 2, 3, 2), "b", 1).mean((1, 2))


def test_a_unit_is_convolution_norm_and_relu(tmp_path):
    network = Network(small, "conv", (1, 4, 4, 1), plain=("b",), unused=("fc.weight",))
    shapes = tensor_shapes(network)
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    tensors["a.bn.running_var"] = np.abs(tensors["a.bn.running_var"])
    save_file(
        {**tensors, "fc.weight": np.zeros(3), "a.bn.num_batches_tracked": np.zeros(1)}, tmp_path / "w.safetensors"
    )
    function, digest = load(network, tmp_path / "w.safetensors")
    x = rng.normal(size=(1, 4, 4, 1)).astype(np.float32)
    padded = np.pad(x[0, ..., 0], ((0, 1), (0, 1)))  # a stride of 2 over 4: one row and column, at the end
    out = np.zeros((2, 2, 1))
    for i, j in np.ndindex(2, 2):
        window = padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        raw = (tensors["a.conv.weight"][:, 0] * window).sum((1, 2))
        scale = tensors["a.bn.weight"] / np.sqrt(tensors["a.bn.running_var"] + 1e-3)
        hidden = np.maximum((raw - tensors["a.bn.running_mean"]) * scale + tensors["a.bn.bias"], 0)
        out[i, j] = tensors["b.conv.weight"][0, :, 0, 0] @ hidden + tensors["b.conv.bias"]
    np.testing.assert_allclose(function(x), [out.mean((0, 1))], rtol=1e-5)
    assert len(digest) == 16
    for more, message in (({"c": np.zeros(1)}, "holds a tensor c"), ({"a.bn.bias": np.zeros(3)}, "a.bn.bias is")):
        save_file({**tensors, **more}, tmp_path / "wrong.safetensors")
        with pytest.raises(UserError, match=message):
            load(network, tmp_path / "wrong.safetensors")
