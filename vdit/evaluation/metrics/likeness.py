"""How near a video comes to the true one, frame by frame: PSNR and SSIM."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

SIGMA, TRUNCATE = 1.5, 3.5
"""The window of SSIM: 11 x 11 pixels."""


def psnr(video_TYXC: np.ndarray, true_TYXC: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of each uint8 frame in dB, at most 100 (where frames are equal)."""
    error_T = ((video_TYXC.astype(np.float64) - true_TYXC) ** 2).mean((1, 2, 3))
    return 10 * np.log10(255.0**2 / np.maximum(error_T, 255.0**2 / 1e10))


def ssim(video_TYXC: np.ndarray, true_TYXC: np.ndarray) -> np.ndarray:
    """Structural similarity of each uint8 frame, averaged over channels (Wang et al. 2004, Gaussian window)."""
    smooth = lambda x: gaussian_filter(x, (0, SIGMA, SIGMA, 0), truncate=TRUNCATE)  # noqa: E731
    a, b = video_TYXC.astype(np.float64), true_TYXC.astype(np.float64)
    mean_a, mean_b = smooth(a), smooth(b)
    var_a, var_b, covariance = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2, smooth(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    map_TYXC = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    map_TYXC /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return map_TYXC.mean((1, 2, 3))
