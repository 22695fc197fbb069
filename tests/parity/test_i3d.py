"""I3D, on random weights, against a network of PyTorch written down here by itself, with TensorFlow's padding."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from vdit.models.features import i3d


def padded(x, kernel, stride):
    """Zeros around time, height and width, so that a step of `stride` gives ceil(size / stride): more at the end."""
    pads = []
    for size, k, s in zip(x.shape[2:], kernel, stride, strict=True):
        total = max((-(-size // s) - 1) * s + k - size, 0)
        pads = [total // 2, total - total // 2, *pads]
    return F.pad(x, pads)


class Unit(nn.Module):
    def __init__(self, before: int, after: int, kernel: int = 1, stride: int = 1):
        super().__init__()
        self.conv3d = nn.Conv3d(before, after, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(after, eps=0.001)

    def forward(self, x):
        return F.relu(self.bn(self.conv3d(padded(x, self.conv3d.kernel_size, self.conv3d.stride))))


def pool(x, kernel, stride):
    return F.max_pool3d(padded(x, kernel, stride), kernel, stride)


class Mixed(nn.Module):
    def __init__(self, before: int, a: int, b: int, c: int, d: int, e: int, f: int):
        super().__init__()
        self.b0, self.b1a, self.b1b = Unit(before, a), Unit(before, b), Unit(b, c, 3)
        self.b2a, self.b2b, self.b3b = Unit(before, d), Unit(d, e, 3), Unit(before, f)

    def forward(self, x):
        pooled = pool(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], 1)


class I3D(nn.Module):
    def __init__(self):
        super().__init__()
        self.Conv3d_1a_7x7, self.Conv3d_2b_1x1, self.Conv3d_2c_3x3 = Unit(3, 64, 7, 2), Unit(64, 64), Unit(64, 192, 3)
        self.Mixed_3b, self.Mixed_3c = Mixed(192, 64, 96, 128, 16, 32, 32), Mixed(256, 128, 128, 192, 32, 96, 64)
        self.Mixed_4b, self.Mixed_4c = Mixed(480, 192, 96, 208, 16, 48, 64), Mixed(512, 160, 112, 224, 24, 64, 64)
        self.Mixed_4d, self.Mixed_4e = Mixed(512, 128, 128, 256, 24, 64, 64), Mixed(512, 112, 144, 288, 32, 64, 64)
        self.Mixed_4f, self.Mixed_5b = Mixed(528, 256, 160, 320, 32, 128, 128), Mixed(832, 256, 160, 320, 32, 128, 128)
        self.Mixed_5c = Mixed(832, 384, 192, 384, 48, 128, 128)
        self.logits = nn.Module()
        self.logits.conv3d = nn.Conv3d(1024, 400, 1)

    def forward(self, x):
        x = pool(self.Conv3d_1a_7x7(x), (1, 3, 3), (1, 2, 2))
        x = pool(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), (1, 3, 3), (1, 2, 2))
        x = pool(self.Mixed_3c(self.Mixed_3b(x)), (3, 3, 3), (2, 2, 2))
        x = self.Mixed_4f(self.Mixed_4e(self.Mixed_4d(self.Mixed_4c(self.Mixed_4b(x)))))
        x = self.Mixed_5c(self.Mixed_5b(pool(x, (2, 2, 2), (2, 2, 2))))
        x = self.logits.conv3d(F.avg_pool3d(x, (2, 7, 7), 1))
        return x[..., 0, 0].mean(2)


def test_logits(tmp_path, stir):
    model = I3D().eval()
    stir(model)
    torch.save(model.state_dict(), tmp_path / "i3d.pth", _use_new_zipfile_serialization=False)
    video = np.random.default_rng(0).integers(0, 256, (17, 40, 48, 3), np.uint8)
    frames = torch.from_numpy(video.transpose(0, 3, 1, 2).copy()).float()
    with torch.no_grad():
        shown = F.interpolate(frames, (224, 224), mode="bilinear", align_corners=False) / 127.5 - 1
        expected = model(shown.transpose(0, 1)[None]).numpy()
    function, name = i3d.load_features(tmp_path / "i3d.pth")
    found = function(video)
    assert expected.shape == (1, 400) and expected.std() > 0.05
    np.testing.assert_allclose(found, expected, atol=1e-3 * expected.std())
    assert name.startswith("I3D of Kinetics-400 RGB, weights ")
