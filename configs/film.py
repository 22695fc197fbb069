"""Text to video on the film's shots, in windows of 17 frames at 12 frames/s: the film model of `make study`.

Build the data first: python -m data_pipelines.build --source=film --out=data/film
600 steps buy a mosaic: rough colours of sky and grass where a first frame is given. README.md shows its samples.
"""

from ml_collections import ConfigDict

from configs import study


def get_config() -> ConfigDict:
    config = study.get_config().film
    config.data.path = "data/film"
    return config
