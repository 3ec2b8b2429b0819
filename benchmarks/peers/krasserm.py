"""krasserm's perceiver-io 0.6.0, in the environment that it installs in: Python 3.10, torch 1.12."""

import numpy as np
import torch
from perceiver.model.core import InputAdapter, PerceiverConfig, PerceiverDecoder, PerceiverEncoder, PerceiverIO
from perceiver.model.core.classifier import ClassificationDecoderConfig, ClassificationOutputAdapter
from perceiver.model.image.classifier import ImageClassifier, ImageEncoderConfig
from perceiver.model.text.mlm import MaskedLanguageModel, TextDecoderConfig, TextEncoderConfig

from benchmarks import inputs
from benchmarks.cases import Canonical, Case, Forward, InputScaling, OutputScaling, Plain, Policy, Training
from benchmarks.peers import torch_common
from benchmarks.peers.contract import Built, NoSuchModelError, Variant

probe = torch_common.probe


def load(threads: int) -> dict:
    """See `contract`."""
    return torch_common.start(threads, "perceiver-io")


def build(case: Case, variant: Variant) -> Built:
    """See `contract`."""
    if isinstance(case, (InputScaling, OutputScaling, Policy)):
        given = {"features": inputs.features(case.batch, case.plain.tokens, case.plain.channels)}
        built = torch_common.forward(_plain(case.plain), lambda model, given: model(given["features"]), given, variant)
        built.notes = ("gets the encoded features; computes no positions",)
        return built
    if isinstance(case, (Forward, Training)) and case.model is Canonical.IMAGENET_FOURIER:
        return _image(case, variant)
    if isinstance(case, (Forward, Training)) and case.model is Canonical.LANGUAGE:
        return _language(case, variant)
    raise NoSuchModelError("perceiver-io has the ImageNet model on Fourier positions and the language model")


def _image(case, variant: Variant) -> Built:
    encoder = ImageEncoderConfig(
        image_shape=(inputs.SIZE, inputs.SIZE, 3),
        num_frequency_bands=64,
        num_cross_attention_heads=1,
        num_self_attention_heads=8,
        num_self_attention_layers_per_block=6,
        num_self_attention_blocks=8,
    )
    decoder = ClassificationDecoderConfig(
        num_classes=inputs.CLASSES, num_output_query_channels=1024, num_cross_attention_heads=1
    )
    model = ImageClassifier(PerceiverConfig(encoder, decoder, num_latents=512, num_latent_channels=1024))
    given = {"image": (inputs.pictures(case.batch) - inputs.MEAN) / inputs.STD}
    if isinstance(case, Forward):
        return torch_common.forward(model, lambda model, given: model(given["image"]), given, variant)
    given["label"] = inputs.classes(case.batch).astype(np.int64)

    def loss(model, given):
        return torch.nn.functional.cross_entropy(model(given["image"]), given["label"])

    return torch_common.training(model, loss, given, variant)


def _language(case, variant: Variant) -> Built:
    shape = {
        "num_cross_attention_qk_channels": 256,
        "num_cross_attention_v_channels": 1280,
        "num_cross_attention_heads": 8,
        "num_self_attention_qk_channels": 256,
        "num_self_attention_v_channels": 1280,
        "num_self_attention_heads": 8,
        "num_self_attention_layers_per_block": 26,
        "num_self_attention_blocks": 1,
    }
    sizes = {"vocab_size": inputs.VOCABULARY, "max_seq_len": inputs.LENGTH}
    encoder = TextEncoderConfig(num_input_channels=768, **sizes, **shape)
    decoder = TextDecoderConfig(
        num_cross_attention_qk_channels=256,
        num_cross_attention_v_channels=768,
        num_cross_attention_heads=8,
        cross_attention_residual=False,
        **sizes,
    )
    model = MaskedLanguageModel(PerceiverConfig(encoder, decoder, num_latents=256, num_latent_channels=1280))
    text = inputs.text(case.batch)
    given = {"ids": text.ids.astype(np.int64), "padding": ~text.mask}
    if isinstance(case, Forward):
        return torch_common.forward(model, lambda model, given: model(given["ids"], given["padding"]), given, variant)
    given["labels"] = text.labels.astype(np.int64)

    def loss(model, given):
        logits = model(given["ids"], given["padding"])
        return torch.nn.functional.cross_entropy(logits.transpose(1, 2), given["labels"], ignore_index=inputs.IGNORED)

    return torch_common.training(model, loss, given, variant)


class _AsTheyAre(InputAdapter):
    """Features that need no adapter."""

    def forward(self, x):
        return x


def _plain(plain: Plain) -> torch.nn.Module:
    encoder = PerceiverEncoder(
        _AsTheyAre(plain.channels),
        num_latents=plain.latents,
        num_latent_channels=plain.width,
        num_cross_attention_heads=1,
        num_cross_attention_qk_channels=plain.channels,
        num_self_attention_heads=plain.heads,
        num_self_attention_layers_per_block=plain.depth,
    )
    decoder = PerceiverDecoder(
        ClassificationOutputAdapter(plain.answers, plain.queries, plain.query_width),
        num_latent_channels=plain.width,
        num_cross_attention_heads=1,
        num_cross_attention_qk_channels=plain.width,
    )
    return PerceiverIO(encoder, decoder)
