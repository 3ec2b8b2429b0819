"""perceiver: one JAX model for any sensor, through one latent bottleneck.

The names below load on first use, so that importing the package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "perceiver.adapters": (
        "Bytes",
        "FramePair",
        "Image",
        "Label",
        "Levels",
        "LogMel",
        "Ngrams",
        "Points",
        "State",
        "Subwords",
        "Vectors",
        "Video",
        "Waveform",
    ),
    "perceiver.attention": ("Activation", "Block"),
    "perceiver.buckets": ("Buckets",),
    "perceiver.convolutions": ("ConvStem",),
    "perceiver.descriptors": ("Descriptors",),
    "perceiver.decoders": (
        "CTC",
        "AtPoints",
        "AtTimes",
        "BinnedChunk",
        "Chunk",
        "Classes",
        "Dense",
        "Embedding",
        "Flow",
        "FlowChunk",
        "FromTokens",
        "Grid",
        "Output",
        "Pooled",
        "Regression",
        "Slots",
        "SoundPatches",
        "TokenLogits",
        "Trunk",
        "WithInput",
    ),
    "perceiver.embedding": ("embed",),
    "perceiver.encoder": ("Encoder",),
    "perceiver.errors": ("ConfigError", "InputError", "MissingExtraError"),
    "perceiver.filterbank": ("Filterbank",),
    "perceiver.inference": ("decode_at",),
    "perceiver.model": ("Compute", "Latents", "Perceiver", "PerceiverConfig"),
    "perceiver.positions": ("Fourier", "Learned", "Projected", "Refined"),
    "perceiver.pretrained": ("from_pretrained",),
    "perceiver.quantised": ("Weights",),
    "perceiver.retrieval": ("Index",),
    "perceiver.robot": ("Robot", "Sensor"),
    "perceiver.smaller": ("quantise", "reduced"),
    "perceiver.spectrogram": ("Spectrogram",),
    "perceiver.tokens": ("Tokens",),
    "perceiver.zeroshot": ("classify",),
    "perceiver.zoo.clip": ("CLIPModel",),
    "perceiver.zoo.siglip": ("SiglipModel",),
    "perceiver.zoo.vit": ("ViTForImageClassification",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'perceiver' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__


if TYPE_CHECKING:
    from perceiver.adapters import (
        Bytes,
        FramePair,
        Image,
        Label,
        LogMel,
        Ngrams,
        Points,
        State,
        Subwords,
        Vectors,
        Video,
        Waveform,
    )
    from perceiver.attention import Activation, Block
    from perceiver.buckets import Buckets
    from perceiver.convolutions import ConvStem
    from perceiver.decoders import (
        CTC,
        AtPoints,
        AtTimes,
        BinnedChunk,
        Chunk,
        Classes,
        Dense,
        Embedding,
        Flow,
        FlowChunk,
        FromTokens,
        Grid,
        Output,
        Pooled,
        Regression,
        Slots,
        SoundPatches,
        TokenLogits,
        Trunk,
        WithInput,
    )
    from perceiver.descriptors import Descriptors
    from perceiver.embedding import embed
    from perceiver.encoder import Encoder
    from perceiver.errors import ConfigError, InputError, MissingExtraError
    from perceiver.filterbank import Filterbank
    from perceiver.inference import decode_at
    from perceiver.model import Compute, Latents, Perceiver, PerceiverConfig
    from perceiver.positions import Fourier, Learned, Projected, Refined
    from perceiver.pretrained import from_pretrained
    from perceiver.quantised import Weights
    from perceiver.retrieval import Index
    from perceiver.robot import Robot, Sensor
    from perceiver.smaller import quantise, reduced
    from perceiver.spectrogram import Spectrogram
    from perceiver.tokens import Tokens
    from perceiver.zeroshot import classify
    from perceiver.zoo.clip import CLIPModel
    from perceiver.zoo.siglip import SiglipModel
    from perceiver.zoo.vit import ViTForImageClassification
