"""Our model of each case."""

import dataclasses

from benchmarks.cases import Canonical, Case, Forward, Training, WholeClip
from perceiver.model import ModelConfig, PerceiverConfig
from perceiver.zoo import flow, imagenet, kinetics, language

CANONICAL = {
    Canonical.IMAGENET_FOURIER: imagenet.imagenet_fourier,
    Canonical.IMAGENET_LEARNED: imagenet.imagenet_learned,
    Canonical.IMAGENET_CONV: imagenet.imagenet_conv,
    Canonical.LANGUAGE: language.language,
    Canonical.FLOW: flow.flow,
    Canonical.KINETICS: kinetics.kinetics,
}


def config(case: Case) -> ModelConfig:
    """The declaration of the model that a case measures."""
    if isinstance(case, Forward | Training):
        return CANONICAL[case.model]()
    if isinstance(case, WholeClip):
        return kinetics.kinetics()
    raise NotImplementedError(type(case).__name__)


def with_remat(config: PerceiverConfig) -> PerceiverConfig:
    """The same model, which recomputes its self-attends in the backward pass."""
    return dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, remat=True))
