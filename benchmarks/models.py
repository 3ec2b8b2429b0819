"""Our model of each case, and what it is asked."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import perceiver as p
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
from perceiver.adapters.vectors import Vectors
from perceiver.attention import Block
from perceiver.decoders import Chunk, Classes, Dense, Output, Slots
from perceiver.dual import DualEncoderConfig
from perceiver.encoder import Encoder
from perceiver.model import ModelConfig, PerceiverConfig
from perceiver.positions import Fourier
from perceiver.zoo import clip, flow, imagenet, kinetics, language

CANONICAL: Mapping[Canonical, Callable[[], PerceiverConfig]] = {
    Canonical.IMAGENET_FOURIER: imagenet.imagenet_fourier,
    Canonical.IMAGENET_LEARNED: imagenet.imagenet_learned,
    Canonical.IMAGENET_CONV: imagenet.imagenet_conv,
    Canonical.LANGUAGE: language.language,
    Canonical.FLOW: flow.flow,
    Canonical.KINETICS: kinetics.kinetics,
}
CHUNK = 8192
"""Queries that the output-scaling model decodes at once."""


def config(case: Case) -> ModelConfig:
    """The declaration of the model that a case measures."""
    if isinstance(case, Forward | Training):
        return CANONICAL[case.model]()
    if isinstance(case, WholeClip):
        return kinetics.kinetics()
    if isinstance(case, InputScaling):
        return _points(case)
    if isinstance(case, OutputScaling):
        adapter = Vectors(case.inputs, case.input_width)
        answers = Output(Dense(case.answers), Slots(case.queries, case.query_width), chunk=CHUNK)
        return PerceiverConfig({"tokens": adapter}, _encoder(case.plain), {"answers": answers})
    if isinstance(case, Policy):
        return _policy(case)
    assert isinstance(case, Contrastive)
    return clip.config(clip_fields(case), {}, None)


def _encoder(plain: Plain) -> Encoder:
    return Encoder(plain.latents, plain.width, plain.depth, cross=Block(heads=1), latent=Block(heads=plain.heads))


def _points(case: InputScaling) -> PerceiverConfig:
    position = Fourier(case.bands, (64.0, 64.0, 64.0), concatenate=False)
    corner = (1.0, 1.0, 1.0)
    cloud = p.Points(case.points, (-1.0, -1.0, -1.0), corner, features=("intensity",), position=position)
    return PerceiverConfig({"points": cloud}, _encoder(case.plain), {"label": Output(Classes(case.classes))})


def _policy(case: Policy) -> PerceiverConfig:
    camera = p.Image((case.side, case.side, 3), patch=case.patch, position=Fourier(case.bands))
    cameras = {f"camera_{number}": camera for number in range(case.cameras)}
    state = p.State(case.state, project=None)
    return PerceiverConfig(
        {**cameras, "state": state}, _encoder(case.plain), {"actions": Output(Chunk(case.steps, case.actions))}
    )


def clip_fields(case: Contrastive) -> dict[str, Any]:
    """CLIP's config.json."""
    layers = {
        "hidden_size": case.channels,
        "intermediate_size": 4 * case.channels,
        "num_hidden_layers": case.depth,
        "num_attention_heads": case.heads,
    }
    end = case.vocabulary - 1
    text = {"vocab_size": case.vocabulary, "max_position_embeddings": case.length, "eos_token_id": end}
    vision = {"image_size": case.side, "patch_size": case.patch}
    return {
        "model_type": "clip",
        "projection_dim": case.joint,
        "text_config": {**layers, **text, "bos_token_id": 1, "pad_token_id": 2},
        "vision_config": {**layers, **vision},
    }


def with_remat(config: ModelConfig) -> ModelConfig:
    """The same model, which recomputes its self-attends in the backward pass."""
    if isinstance(config, DualEncoderConfig):
        towers = {name: dataclasses.replace(getattr(config, name), remat=True) for name in ("image", "text")}
        return dataclasses.replace(config, **towers)
    assert isinstance(config, PerceiverConfig)
    return dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, remat=True))


@dataclasses.dataclass(frozen=True)
class Call:
    """What a model is called with, as numpy arrays: arguments of `Perceiver.__call__`, and what training aims at."""

    inputs: dict[str, np.ndarray]
    masks: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    queries: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    targets: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Of all arrays."""
        parts = (self.inputs, self.masks, self.queries, self.targets)
        return sum(array.nbytes for part in parts for array in part.values())


def call(case: Case) -> Call:
    """What a case asks."""
    if isinstance(case, WholeClip):
        return Call(inputs.clip(case.batch)._asdict())
    if isinstance(case, InputScaling):
        return Call({"points": inputs.points(case.batch, case.points)})
    if isinstance(case, OutputScaling):
        return Call({"tokens": inputs.features(case.batch, case.inputs, case.input_width)})
    if isinstance(case, Policy):
        pictures = inputs.generator().integers(256, size=(case.cameras, case.batch, case.side, case.side, 3))
        cameras = {f"camera_{number}": pixels.astype(np.uint8) for number, pixels in enumerate(pictures)}
        return Call({**cameras, "state": inputs.features(case.batch, 1, case.state)})
    if isinstance(case, Contrastive):
        return Call(inputs.pairs(case.batch, case.side, case.length, case.vocabulary)._asdict())
    assert isinstance(case, Forward | Training)
    return _canonical_call(case)


def _canonical_call(case: Forward | Training) -> Call:
    if case.model is Canonical.LANGUAGE:
        text = inputs.text(case.batch)
        return Call({"text": text.ids}, {"text": text.mask}, targets={"text": text.labels})
    if case.model is Canonical.FLOW:
        return Call({"frames": inputs.frames(case.batch)})
    if case.model is Canonical.KINETICS:
        return Call(inputs.clip(case.batch)._asdict(), queries=inputs.clip_points())
    return Call({"image": inputs.pictures(case.batch)}, targets={"label": inputs.classes(case.batch)})
