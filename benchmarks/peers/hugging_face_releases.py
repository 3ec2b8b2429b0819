"""The released Perceiver IOs of transformers: classes and configs, without transformers itself."""

import typing

from benchmarks.cases import Canonical

IMAGES = {
    "num_latents": 512,
    "d_latents": 1024,
    "num_blocks": 8,
    "num_self_attends_per_block": 6,
    "num_self_attention_heads": 8,
    "num_cross_attention_heads": 1,
    "qk_channels": None,
    "v_channels": None,
    "num_labels": 1000,
    "image_size": 224,
}
FLOW = {
    "num_latents": 2048,
    "d_latents": 512,
    "d_model": 322,
    "num_blocks": 1,
    "num_self_attends_per_block": 24,
    "num_self_attention_heads": 16,
    "num_cross_attention_heads": 1,
    "train_size": [368, 496],
}
CLIPS = {
    "num_latents": 784,
    "d_latents": 512,
    "d_model": 704,
    "num_blocks": 1,
    "num_self_attends_per_block": 8,
    "num_self_attention_heads": 8,
    "num_cross_attention_heads": 1,
    "num_labels": 700,
}
RELEASES: typing.Dict[Canonical, typing.Tuple[str, dict]] = {  # noqa: UP006
    Canonical.IMAGENET_FOURIER: ("PerceiverForImageClassificationFourier", {**IMAGES, "d_model": 261}),
    Canonical.IMAGENET_LEARNED: ("PerceiverForImageClassificationLearned", {**IMAGES, "d_model": 512}),
    Canonical.IMAGENET_CONV: ("PerceiverForImageClassificationConvProcessing", {**IMAGES, "d_model": 322}),
    Canonical.LANGUAGE: ("PerceiverForMaskedLM", {"qk_channels": 256, "v_channels": 1280}),
    Canonical.FLOW: ("PerceiverForOpticalFlow", FLOW),
    Canonical.KINETICS: ("PerceiverForMultimodalAutoencoding", CLIPS),
}
"""The class and what differs from its config's defaults, as in the released checkpoints' config.json."""
