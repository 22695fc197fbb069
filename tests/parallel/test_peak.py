import jax
import pytest

from vdit.parallel import peak


@pytest.mark.parametrize(
    ("kind", "tflops"),
    [
        ("TPU v5 lite", 197),
        ("TPU v5p", 459),
        ("TPU v5", 459),
        ("TPU v6 lite", 918),
        ("TPU7x", 1153.5),
        ("NVIDIA H200", 989),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA GB200", 2500),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("Tesla T4", 65),
    ],
)
def test_published_peaks_are_found_by_what_jax_calls_a_device(kind, tflops):
    assert peak.published(kind) == pytest.approx(tflops * 1e12)


@pytest.mark.parametrize("kind", ["cpu", "NVIDIA L400", "TITAN V", "interpreter"])
def test_of_others_none_is_known(kind):
    assert peak.published(kind) is None


def test_a_cpu_is_measured_by_matrix_products():
    rate, source = peak.peak_rate()
    assert source == "measured" and 1e8 < rate < 1e14
    assert peak.peak_rate()[0] == rate, "once a process"


def test_a_published_peak_is_that_of_all_devices(monkeypatch):
    monkeypatch.setattr(peak, "published", lambda kind: 2e12)
    assert peak.peak_rate() == (2e12 * jax.device_count(), "published")
