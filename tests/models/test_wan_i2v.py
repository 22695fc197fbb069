"""Image to video: latents with what is known of the clip, and CLIP features of its first frame, on random weights."""

import json

import numpy as np
import pytest
from models.test_wan_vae import clip, write_weights
from safetensors.numpy import save_file

from vdit.errors import UserError
from vdit.models.autoencoders.registry import load_autoencoder, strides_of
from vdit.models.wan.clip import ClipConfig, load_image_encoder, prepare, published_shapes

CLIP = ClipConfig(width=8, layers=3, heads=2, feed_forward=12, side=32, patch=2)


def write_clip(folder, config=CLIP, **values):
    """Random weights of an image encoder as they are published."""
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in published_shapes(config).items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    about = {
        "model_type": "clip_vision_model",
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.feed_forward,
        "image_size": config.side,
        "patch_size": config.patch,
        "hidden_act": config.activation,
    }
    (folder / "config.json").write_text(json.dumps({**about, **values}))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("wan") / "vae")


def test_latents_are_followed_by_what_is_known(folder):
    plain, ours = (load_autoencoder(f"{kind}:{folder}") for kind in ("wan", "wan_i2v"))
    assert (ours.channels, ours.condition, ours.strides) == (8, 6, plain.strides) == (8, 6, strides_of(ours.name))
    assert ours.identity == {**plain.identity, "name": f"wan_i2v:{folder}", "condition": 6}
    video = clip(9)
    found = ours.encode(video)
    np.testing.assert_allclose(found[..., :2], plain.encode(video), atol=1e-6)
    np.testing.assert_array_equal(
        found[..., 2:6], np.broadcast_to(np.array([1, 0, 0])[:, None, None, None], (3, 2, 4, 4))
    )
    other = np.concatenate([video[:1], clip(8)[::-1]])
    np.testing.assert_array_equal(ours.encode(other)[..., 6:], found[..., 6:])  # of the first frame alone
    np.testing.assert_allclose(found[:1, ..., 6:], found[:1, ..., :2], atol=1e-6)
    grey = np.concatenate([video[:1], np.full_like(video[1:], 128)])  # half a step above 0
    np.testing.assert_allclose(found[1:, ..., 6:], plain.encode(grey)[1:], atol=0.05)
    np.testing.assert_allclose(np.concatenate(list(ours.encode_stream([video[:3], video[3:]], 1))), found, atol=1e-5)
    np.testing.assert_array_equal(ours.decode(found), plain.decode(found[..., :2]))


def test_the_middle_square_of_an_image_is_looked_at(tmp_path):
    encode = load_image_encoder(write_clip(tmp_path))
    image = np.random.default_rng(0).integers(0, 256, (40, 64, 3), np.uint8)
    assert prepare(image, 32).shape == (32, 32, 3)
    features = encode(image)
    assert features.shape == (257, 8) and features.dtype == np.float32
    sides = image.copy()
    sides[:, :8] = sides[:, -8:] = 0  # 12 columns on either side are cut away; the filter reaches over some of them
    np.testing.assert_allclose(encode(sides), features, atol=1e-5)
    assert np.abs(encode(255 - image) - features).max() > 0.1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "siglip"}, "is not the config of a CLIP image encoder .model_type 'siglip'"),
        ({"patch_size": 4}, "65 tokens instead of 257"),
        ({"hidden_act": "swish"}, "hidden_act swish"),
        ({"intermediate_size": 16}, r"mlp.fc1.weight is \[12, 8\], the model's is \[16, 8\]"),
    ],
)
def test_other_image_encoders_are_refused(tmp_path, values, message):
    with pytest.raises(UserError, match=message) as error:
        load_image_encoder(write_clip(tmp_path, **values))
    assert "\n" not in str(error.value)
