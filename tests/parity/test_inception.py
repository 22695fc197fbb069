"""Inception v3 of the FID, on random weights, against a network of PyTorch written down here by itself."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from vdit.models.features import inception


class Conv(nn.Module):
    def __init__(self, before: int, after: int, kernel=1, stride: int = 1, padding=0):
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=0.001)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


def mean(x):
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def largest(x):
    return F.max_pool2d(x, 3, 1, 1)


def half(x):
    return F.max_pool2d(x, 3, 2)


class Block(nn.Module):
    """Branches side by side: each a list of (name, channels, kernel, stride, padding), after a pool if there is one."""

    def __init__(self, before: int, branches, ends=()):
        super().__init__()
        self.branches, self.ends = branches, dict(ends)
        for _, layers in branches:
            width = before
            for name, *shape in layers:
                self.add_module(name, Conv(width, *shape))
                width = shape[0]
            for name, *shape in self.ends.get(layers[-1][0], ()) if layers else ():
                self.add_module(name, Conv(width, *shape))

    def forward(self, x):
        out = []
        for pool, layers in self.branches:
            y = pool(x) if pool else x
            for name, *_ in layers:
                y = getattr(self, name)(y)
            last = layers[-1][0] if layers else ""
            out += [getattr(self, name)(y) for name, *_ in self.ends[last]] if last in self.ends else [y]
        return torch.cat(out, 1)


def three(name, width):
    return name, width, 3, 1, 1


def across(name, width):
    return name, width, (1, 7), 1, (0, 3)


def down(name, width):
    return name, width, (7, 1), 1, (3, 0)


def block_a(before, pooled):
    double = [("branch3x3dbl_1", 64), three("branch3x3dbl_2", 96), three("branch3x3dbl_3", 96)]
    five = [("branch5x5_1", 48), ("branch5x5_2", 64, 5, 1, 2)]
    return Block(before, [(None, [("branch1x1", 64)]), (None, five), (None, double), (mean, [("branch_pool", pooled)])])


def block_c(width):
    single = [("branch7x7_1", width), across("branch7x7_2", width), down("branch7x7_3", 192)]
    double = [("branch7x7dbl_1", width), down("branch7x7dbl_2", width), across("branch7x7dbl_3", width)]
    double += [down("branch7x7dbl_4", width), across("branch7x7dbl_5", 192)]
    return Block(768, [(None, [("branch1x1", 192)]), (None, single), (None, double), (mean, [("branch_pool", 192)])])


def block_e(before, pool):
    ends = {
        "branch3x3_1": [("branch3x3_2a", 384, (1, 3), 1, (0, 1)), ("branch3x3_2b", 384, (3, 1), 1, (1, 0))],
        "branch3x3dbl_2": [("branch3x3dbl_3a", 384, (1, 3), 1, (0, 1)), ("branch3x3dbl_3b", 384, (3, 1), 1, (1, 0))],
    }
    double = [("branch3x3dbl_1", 448), three("branch3x3dbl_2", 384)]
    parts = [(None, [("branch1x1", 320)]), (None, [("branch3x3_1", 384)]), (None, double)]
    return Block(before, [*parts, (pool, [("branch_pool", 192)])], ends)


class Inception(nn.Module):
    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3, 1, 1)
        self.Conv2d_3b_1x1 = Conv(64, 80)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = block_a(192, 32), block_a(256, 64), block_a(288, 64)
        double = [("branch3x3dbl_1", 64), three("branch3x3dbl_2", 96), ("branch3x3dbl_3", 96, 3, 2)]
        self.Mixed_6a = Block(288, [(None, [("branch3x3", 384, 3, 2)]), (None, double), (half, [])])
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = map(block_c, (128, 160, 160, 192))
        short = [("branch3x3_1", 192), ("branch3x3_2", 320, 3, 2)]
        long = [("branch7x7x3_1", 192), across("branch7x7x3_2", 192), down("branch7x7x3_3", 192)]
        self.Mixed_7a = Block(768, [(None, short), (None, [*long, ("branch7x7x3_4", 192, 3, 2)]), (half, [])])
        self.Mixed_7b, self.Mixed_7c = block_e(1280, mean), block_e(2048, largest)
        self.fc = nn.Linear(2048, 1008)

    def forward(self, x):
        x = half(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = half(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)
        return x.mean((2, 3))


def test_features(tmp_path, stir):
    model = Inception().eval()
    stir(model)
    torch.save(model.state_dict(), tmp_path / "inception.pth")
    coarse = np.random.default_rng(0).integers(0, 256, (2, 3, 40, 56), np.uint8)
    frames = torch.from_numpy(coarse).float()
    with torch.no_grad():
        shown = F.interpolate(frames / 255, (299, 299), mode="bilinear", align_corners=False)
        expected = model(2 * shown - 1).numpy()
    function, name = inception.load_features(tmp_path / "inception.pth", batch=2)
    found = function(coarse.transpose(0, 2, 3, 1))
    assert expected.shape == (2, 2048) and expected.std() > 0.05
    np.testing.assert_allclose(found, expected, atol=1e-3 * expected.std())
    assert name.startswith("Inception v3 of 2015-12-05, weights ")
