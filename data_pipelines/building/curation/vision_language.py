"""A captioner that runs a vision-language model of transformers, as `--captioner=hf:FOLDER` has it.

    python -m data_pipelines.building.curation.vision_language FOLDER

reads requests and answers as `program` says. FOLDER holds a model that `AutoModelForImageTextToText` knows, and its
processor; nothing is downloaded, and no code of the folder is run.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

from PIL import Image

PROMPTS = {
    "short": "Say in one sentence what these frames of one video show.",
    "detailed": "Describe in detail what these frames of one video show: subjects, what they do, setting, camera.",
}
"""What is asked for, by kind of caption."""

TOKENS = {"short": 48, "detailed": 256}
"""Most tokens of an answer."""


class VisionLanguageModel:
    """A model and its processor; greedy, so that a clip has the same captions every time.

    Args:
      folder: with both.
    """

    def __init__(self, folder: str) -> None:
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self._torch = torch
        self._processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True, dtype="auto")
        self._model: Any = model.to(self._device).eval()

    def captions(self, frames: list[Image.Image]) -> dict[str, str]:
        """Captions by kind."""
        return {kind: self._answer(frames, kind) for kind in PROMPTS}

    def _answer(self, frames: list[Image.Image], kind: str) -> str:
        content = [*({"type": "image"} for _ in frames), {"type": "text", "text": PROMPTS[kind]}]
        if getattr(self._processor, "chat_template", None):
            text = self._processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True
            )
            inputs = self._processor(images=frames, text=text, return_tensors="pt")
        else:  # a captioner without instructions (BLIP, GIT) sees one frame, and continues an empty text
            inputs = self._processor(images=frames[len(frames) // 2], return_tensors="pt")
        with self._torch.inference_mode():
            found = self._model.generate(**inputs.to(self._device), max_new_tokens=TOKENS[kind], do_sample=False)
        prompt = inputs["input_ids"].shape[1] if "input_ids" in inputs and not self._encodes_text else 0
        return " ".join(self._processor.batch_decode(found[:, prompt:], skip_special_tokens=True)[0].split())

    @property
    def _encodes_text(self) -> bool:
        """Whether the prompt is not part of what is generated."""
        return bool(self._model.config.is_encoder_decoder)


def main(folder: str) -> None:
    """Answers requests until there are no more."""
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # whatever else is printed is no answer
        model = VisionLanguageModel(folder)
        for line in sys.stdin:
            request = json.loads(line)
            frames = [Image.open(path).convert("RGB") for path in request["frames"]]
            answer = {"id": request["id"], "captions": model.captions(frames)}
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
