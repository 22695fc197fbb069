"""Source tfds:NAME: the images or videos of a prepared TFDS data set, read without TensorFlow."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import read_only_builder

from data_pipelines.media.clip import Input, Options, Outcome, Rejection, limited
from data_pipelines.media.cutting import media_clips
from data_pipelines.media.signatures import joint_signature
from data_pipelines.sources.captions import KIND, caption_kind
from vdit.errors import UserError
from vdit.io.media.media import array_media

SPLITS = {"validation": "val"}
_RATE_FEATURES = ("fps", "frame_rate")
_WEIGHT = 1 << 20


def inputs(name: str, options: Options) -> list[Input]:
    """Every example, split by split.

    Raises:
      UserError: if there is no such prepared data set, it needs TensorFlow, or the features cannot be found.
    """
    directory = _find(name, options.data_dir)
    info = _info(directory)
    video, texts = find_features(info.features, options)
    _rate(info.features, video, options)
    signatures = {split: joint_signature(map(str, about.filepaths)) for split, about in info.splits.items()}
    return limited(
        [
            Input(
                f"{info.full_name}:{split}/{i}",
                SPLITS.get(split, split),
                weight=_WEIGHT,
                data=(directory, split, i, video, texts),
                signature=signatures[split],
            )
            for split, described in info.splits.items()
            for i in range(described.num_examples)
        ],
        options.limit,
    )


def clips(options: Options, source: Input) -> Iterator[Outcome]:
    """Everything that becomes of one example."""
    directory, split, i, video, texts = source.data
    info = _info(directory)
    try:
        example = _examples(directory, split)[i]
        array = np.asarray(example[video])
        video_TYXC = array if array.ndim == 4 else array[None]
        media = array_media(video_TYXC, _rate(info.features, video, options, example))
        captions = {kind: _text(info.features[name], example[name]) for kind, name in texts.items()} or {KIND: ""}
    except UserError:
        raise
    except Exception as error:  # damaged records and pictures raise what their decoders please
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        yield Rejection(source.item, source.split, f"the example cannot be read: {reason}")
        return
    with_captions = Input(source.item, source.split, captions=captions)
    yield from media_clips(f"tfds/{info.full_name}", with_captions, media, options)


def find_features(features: Any, options: Options) -> tuple[str, dict[str, str]]:
    """(name of the picture feature, names of the text features by caption kind).

    Without flags: by name, the first feature that is an image, or a tensor of at least three axes of which the last
    has 1, 3 or 4 entries; texts named like captions, else the first text, else the first class label.

    Raises:
      UserError: if a named feature does not exist, or no picture is found.
    """
    features = dict(sorted(features.items()))  # TFDS's own order varies
    for flag in ("video_feature", "text_feature"):
        if (wanted := getattr(options, flag)) and wanted not in features:
            raise UserError(f"--{flag}={wanted} is not a feature; there are {', '.join(features)}")
    videos = [options.video_feature] if options.video_feature else [n for n, f in features.items() if _is_picture(f)]
    if not videos:
        raise UserError(f"no feature holds pictures; say --video_feature, one of {', '.join(features)}")
    if options.text_feature:
        return videos[0], {KIND: options.text_feature}
    texts = [name for name, feature in features.items() if isinstance(feature, tfds.features.Text)]
    labels = [name for name, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    captions = {kind: name for name in texts if (kind := caption_kind(name))}
    return videos[0], captions or dict(zip([KIND], texts + labels, strict=False))


def _is_picture(feature: Any) -> bool:
    if isinstance(feature, tfds.features.Image):
        return True
    shape = getattr(feature, "shape", None)
    is_tensor = isinstance(feature, tfds.features.Tensor) and np.dtype(feature.np_dtype) == np.uint8
    return bool(is_tensor and shape and len(shape) in (3, 4) and shape[-1] in (1, 3, 4))


def _find(name: str, data_dir: str) -> str:
    """The data set's own directory: NAME may be one, else it is looked for in `data_dir`."""
    if os.path.isfile(os.path.join(name, "dataset_info.json")):
        return name
    try:
        return os.fspath(read_only_builder.builder_from_files(name, data_dir=data_dir or None).data_dir)
    except ImportError as error:
        raise UserError(
            f"tfds:{name} has a feature that needs TensorFlow ({error}); store it as an Image or Tensor"
        ) from error
    except Exception as error:
        where = data_dir or "TFDS's data directory"
        raise UserError(
            f"tfds:{name} is not prepared in {where} ({' '.join(str(error).split())[:120]}); prepare it, or name its "
            "place with --data_dir"
        ) from error


@functools.cache
def _info(directory: str) -> tfds.core.DatasetInfo:
    try:
        return tfds.builder_from_directory(directory).info
    except ImportError as error:
        raise UserError(
            f"{directory} has a feature that needs TensorFlow ({error}); store it as an Image or Tensor"
        ) from error


@functools.cache
def _examples(directory: str, split: str) -> Any:
    try:
        return tfds.builder_from_directory(directory).as_data_source(split=split)
    except (NotImplementedError, ValueError) as error:
        raise UserError(
            f"{directory} cannot be read at random ({' '.join(str(error).split())[:120]}); "
            "prepare it with file_format='array_record'"
        ) from error


def _rate(features: Any, video: str, options: Options, example: dict[str, Any] | None = None) -> float:
    """Frames per second of an example; 0 for an image."""
    shape = features[video].shape
    if len(shape) == 3:
        return 0.0
    for name in _RATE_FEATURES:
        if name in features:
            return float(example[name]) if example else 0.0
    if not options.fps:
        raise UserError(f"no feature {' or '.join(_RATE_FEATURES)} gives the frame rate; set it with --fps")
    return options.fps


def _text(feature: Any, value: Any) -> str:
    if isinstance(feature, tfds.features.ClassLabel):
        return str(feature.int2str(int(value))).replace("_", " ")
    return " ".join((value.decode() if isinstance(value, bytes) else str(value)).split())
