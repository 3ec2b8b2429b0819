"""Hugging Face's transformers on torch, eager or through torch.compile, at the sizes of the releases."""

import typing

import numpy as np
import torch
import transformers

from benchmarks import inputs
from benchmarks.cases import (
    Canonical,
    Case,
    Contrastive,
    Forward,
    InputScaling,
    OutputScaling,
    Plain,
    Policy,
    Training,
    WholeClip,
)
from benchmarks.peers import torch_common
from benchmarks.peers.contract import Built, NoSuchModelError, Variant
from benchmarks.peers.hugging_face_releases import RELEASES

probe = torch_common.probe


def load(threads: int) -> typing.Dict[str, str]:  # noqa: UP006
    """See `contract`."""
    for name, _ in [*RELEASES.values(), ("CLIPModel", {})]:
        getattr(transformers, name)  # transformers imports its models when they are first named
    return torch_common.start(threads, "transformers")


def build(case: Case, variant: Variant) -> Built:
    """See `contract`."""
    if isinstance(case, Forward):
        return torch_common.forward(_release(case.model), _logits, _given(case.model, case.batch), variant)
    if isinstance(case, Training):
        return _training(case, variant)
    if isinstance(case, WholeClip):
        return _whole_clip(case, variant)
    if isinstance(case, Contrastive):
        return _contrastive(case, variant)
    if isinstance(case, (InputScaling, OutputScaling, Policy)):
        return _plain(case.batch, case.plain, variant)
    raise NoSuchModelError(f"transformers has no model for {type(case).__name__}")


def _release(model: Canonical) -> torch.nn.Module:
    name, fields = RELEASES[model]
    # Dropout is 0.1 by default; ours has none, and without it training is faster.
    config = transformers.PerceiverConfig(**fields, attention_probs_dropout_prob=0.0)
    return getattr(transformers, name)(config)


def _given(model: Canonical, batch: int) -> dict:
    """Arguments of forward, as numpy arrays."""
    if model is Canonical.LANGUAGE:
        text = inputs.text(batch)
        return {"inputs": text.ids.astype(np.int64), "attention_mask": text.mask.astype(np.int64)}
    if model is Canonical.FLOW:
        return {"inputs": inputs.surroundings(inputs.frames(batch))}
    if model is Canonical.KINETICS:
        points = {name: at.astype(np.int64) for name, at in inputs.clip_points().items()}
        return {"inputs": _clip(batch), "subsampled_output_points": {**points, "label": None}}
    normalised = (inputs.pictures(batch) - inputs.MEAN) / inputs.STD
    return {"inputs": np.ascontiguousarray(normalised.transpose(0, 3, 1, 2))}


def _clip(batch: int) -> dict:
    clip = inputs.clip(batch)
    image = np.ascontiguousarray(clip.image.transpose(0, 1, 4, 2, 3))
    return {"image": image, "audio": clip.audio[..., None], "label": clip.label}


def _logits(model: torch.nn.Module, given: dict) -> typing.Any:
    return model(**given).logits


def _training(case: Training, variant: Variant) -> Built:
    given = _given(case.model, case.batch)
    if case.model is Canonical.LANGUAGE:
        given["labels"] = inputs.text(case.batch, case.masked).labels.astype(np.int64)
    else:
        given["labels"] = inputs.classes(case.batch).astype(np.int64)
    return torch_common.training(_release(case.model), lambda model, given: model(**given).loss, given, variant)


def _whole_clip(case: WholeClip, variant: Variant) -> Built:
    """Its notebook's loop: encoder and decoder run again for every chunk, since forward does both."""
    given = _given(Canonical.KINETICS, case.batch)
    built = torch_common.forward(_release(Canonical.KINETICS), _logits, given, variant)
    built.times = case.chunks
    built.notes = (f"time of one chunk, which encodes again, times {case.chunks}; memory of one chunk",)
    return built


def _plain(batch: int, plain: Plain, variant: Variant) -> Built:
    """PerceiverModel over tokens as they are."""
    from transformers.models.perceiver.modeling_perceiver import PerceiverBasicDecoder

    config = transformers.PerceiverConfig(
        d_model=plain.channels,
        num_latents=plain.latents,
        d_latents=plain.width,
        num_blocks=1,
        num_self_attends_per_block=plain.depth,
        num_self_attention_heads=plain.heads,
        num_cross_attention_heads=1,
        attention_probs_dropout_prob=0.0,
    )
    decoder = PerceiverBasicDecoder(
        config,
        output_num_channels=plain.answers,
        output_index_dims=plain.queries,
        num_channels=plain.query_width,
        num_heads=1,
        use_query_residual=True,
        trainable_position_encoding_kwargs={"num_channels": plain.query_width, "index_dims": plain.queries},
    )
    model = transformers.PerceiverModel(config, decoder=decoder)
    given = {"inputs": inputs.features(batch, plain.tokens, plain.channels)}
    built = torch_common.forward(model, _logits, given, variant)
    built.notes = ("gets the encoded tokens; computes no positions",)
    return built


def _contrastive(case: Contrastive, variant: Variant) -> Built:
    fields = _clip_fields(case)
    model = transformers.CLIPModel(transformers.CLIPConfig(**fields))
    pairs = inputs.pairs(case.batch, case.side, case.length, case.vocabulary)
    pixels = np.ascontiguousarray(pairs.pixels.transpose(0, 3, 1, 2))
    given = {"pixel_values": pixels, "input_ids": pairs.ids.astype(np.int64)}
    return torch_common.training(model, lambda model, given: model(**given, return_loss=True).loss, given, variant)


def _clip_fields(case: Contrastive) -> dict:
    layers = {
        "hidden_size": case.channels,
        "intermediate_size": 4 * case.channels,
        "num_hidden_layers": case.depth,
        "num_attention_heads": case.heads,
    }
    end = case.vocabulary - 1
    text = {"vocab_size": case.vocabulary, "max_position_embeddings": case.length, "eos_token_id": end}
    return {
        "projection_dim": case.joint,
        "text_config": {**layers, **text, "bos_token_id": 1, "pad_token_id": 2},
        "vision_config": {**layers, "image_size": case.side, "patch_size": case.patch},
    }
