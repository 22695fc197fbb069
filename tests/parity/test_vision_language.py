"""--captioner=hf:FOLDER with small random models of transformers, of both kinds that there are."""

import pathlib

import numpy as np
import pytest
import torch
import transformers
from fake_source import FakeEncoder
from make_files import quadrants, write_video
from tokenizers import Tokenizer, models, pre_tokenizers

from data_pipelines.building.build_args import BuildArgs
from data_pipelines.building.builder import build
from data_pipelines.building.curation.captioner import Captioner, captioner_identity
from data_pipelines.building.curation.program import ClipRequest
from data_pipelines.building.curation.vision_language import PROMPTS
from data_pipelines.reading.store import Dataset
from vdit.errors import UserError

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "a", "rabbit", "runs", "over", "the", "lawn", "USER", "ASSISTANT"]
TEMPLATE = (
    "{% for message in messages %}USER {% for part in message.content %}"
    "{% if part.type == 'image' %}<image> {% else %}{{ part.text }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT{% endif %}"
)
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = {"patch_size": 16, "image_size": 32, **SMALL}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens(["<image>"])
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, **special)


def save_llava(folder: pathlib.Path) -> None:
    """A model that follows instructions: eight frames, a chat template."""
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**VISION),
        text_config=transformers.LlamaConfig(vocab_size=len(WORDS), **SMALL, **IDS),
        image_token_id=WORDS.index("<image>"),
        vision_feature_layer=-1,
    )
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    pictures = transformers.CLIPImageProcessor(size=size, crop_size=size)
    transformers.LlavaProcessor(
        pictures,
        tokenizer(),
        patch_size=16,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        image_token="<image>",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)


def save_blip(folder: pathlib.Path) -> None:
    """A model that only captions."""
    text = {"vocab_size": len(WORDS), "encoder_hidden_size": 16, "max_position_embeddings": 320, "sep_token_id": 2}
    config = transformers.BlipConfig(text_config={**text, **SMALL, **IDS}, vision_config=VISION)
    transformers.BlipForConditionalGeneration(config).save_pretrained(folder)
    pictures = transformers.BlipImageProcessor(size={"height": 32, "width": 32})
    transformers.BlipProcessor(pictures, tokenizer()).save_pretrained(folder)


@pytest.mark.parametrize("save", [save_llava, save_blip])
def test_a_model_of_a_folder_captions_a_data_set(tmp_path: pathlib.Path, monkeypatch, save) -> None:
    monkeypatch.setenv("VDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.manual_seed(0)
    save(tmp_path / "model")
    (tmp_path / "in").mkdir()
    for i in range(2):
        write_video(tmp_path / "in" / f"{i}.mp4", [quadrants(24, 32, 5 * i + t) for t in range(9)])
    args = BuildArgs(str(tmp_path / "in"), str(tmp_path / "out"), captioner=f"hf:{tmp_path / 'model'}")
    build(args, FakeEncoder())
    dataset = Dataset(tmp_path / "out")
    assert dataset.meta["captions"] == sorted(PROMPTS)
    assert dataset.meta["build"] | captioner_identity(args.captioner) == dataset.meta["build"]
    captions = [dataset.example("train", i)[f"caption_{kind}"] for i in range(2) for kind in PROMPTS]
    assert all(set(caption.split()) <= set(WORDS) for caption in captions) and any(captions)
    assert not any("USER" in caption.split()[:1] for caption in captions)  # the prompt is no part of it
    kept = list((tmp_path / "cache" / "captions").rglob("*.json"))
    assert len(kept) == 2
    (tmp_path / "out").rename(tmp_path / "before")
    (tmp_path / "model" / "model.safetensors").touch()
    build(args, FakeEncoder())  # from the cache
    assert (tmp_path / "out" / "vdit.json").read_bytes() == (tmp_path / "before" / "vdit.json").read_bytes()
    torch.manual_seed(1)
    save(tmp_path / "model")
    with pytest.raises(UserError, match="is a data set with .*captioner_hash"):
        build(args, FakeEncoder())


def test_a_folder_that_is_no_model_is_one_line(tmp_path: pathlib.Path, monkeypatch) -> None:
    monkeypatch.setenv("VDIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "config.json").write_text("{}")
    captioner = Captioner(f"hf:{tmp_path}")
    with pytest.raises(UserError, match=f"--captioner=hf:{tmp_path} ended with status 1 at a.mp4: .*") as caught:
        captioner(ClipRequest(7, "a.mp4", 8.0, np.zeros((2, 8, 16, 3), np.uint8), {}))
    assert "\n" not in str(caught.value)
    captioner.close()
