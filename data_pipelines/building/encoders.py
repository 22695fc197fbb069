"""What finds captions, subjects, features, latents and embeddings, for all jobs of a process or a machine."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from data_pipelines.building.curation.captioner import Captioner
from data_pipelines.building.curation.detector import Detector
from vdit.models.text.text_encoders import load_text_encoder
from vdit.models.text.token_encoder import TextEncoder

if TYPE_CHECKING:  # importing JAX takes as long as decoding 800 frames, and pixels alone do without it
    from vdit.models.autoencoders.autoencoder import Autoencoder
    from vdit.models.autoencoders.clip_encoding import ClipEncoder

PIXELS = "pixels"
"""Name of the autoencoder that keeps pixels."""

LATENTS = np.dtype(ml_dtypes.bfloat16)
"""How latents are stored."""

CACHE_BYTES = 256 << 20
"""Caption features that are kept, so that a text that comes again is not encoded again."""


class Encoders:
    """A text encoder and maybe an autoencoder, on all devices of this process; may be called from several threads.

    Args:
      text_encoder: of captions, or its name; it is loaded when it is first needed.
      autoencoder: name of what turns pixels into the latents that are stored, as `load_autoencoder` knows it; `PIXELS`
        keeps them.
      captioner, detector: see `captioner.Captioner` and `detector.Detector`.

    Attributes:
      caption, detect: captions of a clip, and the box of its subject.
    """

    def __init__(
        self, text_encoder: str | TextEncoder, autoencoder: str = PIXELS, captioner: str = "", detector: str = ""
    ) -> None:
        self._name, self._autoencoder = text_encoder, autoencoder
        self.caption, self.detect = Captioner(captioner), Detector(detector)
        from data_pipelines.building.curation.embedding import Embedder  # OpenCV: the help of a build waits for none

        self._embedder = Embedder()
        self._features: dict[str, np.ndarray] = {}
        self._lock = threading.Lock()

    @functools.cached_property
    def _text(self) -> TextEncoder:
        return load_text_encoder(self._name) if isinstance(self._name, str) else self._name

    @functools.cached_property
    def _pixels(self) -> Autoencoder | None:
        if self._autoencoder == PIXELS:
            return None
        from vdit.models.autoencoders.registry import load_autoencoder

        return load_autoencoder(self._autoencoder)

    @functools.cached_property
    def _clips(self) -> ClipEncoder | None:
        if self._pixels is None:
            return None
        from vdit.models.autoencoders.clip_encoding import ClipEncoder

        return ClipEncoder(self._pixels)

    def encode(
        self, captions: Sequence[str], videos: Sequence[np.ndarray]
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """text_ME of each caption and latents_TYXC of each video_TYXC.

        Raises:
          UserError: if a clip does not fit the autoencoder's strides.
        """
        with self._lock:
            new = [caption for caption in dict.fromkeys(captions) if caption not in self._features]
            self._features.update(zip(new, self._text.encode(new), strict=True))
            features = [self._features[caption] for caption in captions]
            size = sum(text_ME.nbytes for text_ME in self._features.values())
            while size > CACHE_BYTES:
                size -= self._features.pop(next(iter(self._features))).nbytes
            latents = self._clips(videos) if self._clips and videos else []
            return features, [latents_TYXC.astype(LATENTS) for latents_TYXC in latents]

    def embed(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """embedding_NE of clips, see `embedding.Embedder`."""
        with self._lock:
            return self._embedder(clips)

    def text_identity(self) -> dict[str, Any]:
        """The text encoder, as `vdit.json` names it."""
        with self._lock:
            return {"name": self._text.name, "width": self._text.width, "hash": self._text.hash}

    def autoencoder_identity(self) -> dict[str, Any]:
        """The autoencoder, as `vdit.json` names it."""
        with self._lock:
            return self._pixels.identity if self._pixels else {"name": PIXELS}

    def close(self) -> None:
        """Ends the programs."""
        self.caption.close()
        self.detect.close()

    def usage(self) -> str:
        """What encoding pixels took, in words; empty if they are kept."""
        return f"{self._clips.devices} device(s) encoded {self._clips.usage}" if self._clips else ""
