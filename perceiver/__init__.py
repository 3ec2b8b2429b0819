"""perceiver: one JAX model for any sensor, through one latent bottleneck.

The names below load on first use, so that importing the package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "perceiver.adapters": ("Bytes", "Image", "LogMel", "Points", "State", "Subwords", "Video", "Waveform"),
    "perceiver.attention": ("Activation", "Block"),
    "perceiver.decoders": (
        "AtPoints",
        "AtTimes",
        "Chunk",
        "Classes",
        "Dense",
        "Embedding",
        "FromTokens",
        "Grid",
        "Output",
        "Regression",
        "Slots",
        "TokenLogits",
    ),
    "perceiver.encoder": ("Encoder",),
    "perceiver.errors": ("ConfigError", "InputError", "MissingExtraError"),
    "perceiver.model": ("Compute", "Latents", "Perceiver", "PerceiverConfig"),
    "perceiver.positions": ("Fourier", "Learned"),
    "perceiver.saving": ("from_pretrained",),
    "perceiver.spectrogram": ("Spectrogram",),
    "perceiver.tokens": ("Tokens",),
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
    from perceiver.adapters import Bytes, Image, LogMel, Points, State, Subwords, Video, Waveform
    from perceiver.attention import Activation, Block
    from perceiver.decoders import (
        AtPoints,
        AtTimes,
        Chunk,
        Classes,
        Dense,
        Embedding,
        FromTokens,
        Grid,
        Output,
        Regression,
        Slots,
        TokenLogits,
    )
    from perceiver.encoder import Encoder
    from perceiver.errors import ConfigError, InputError, MissingExtraError
    from perceiver.model import Compute, Latents, Perceiver, PerceiverConfig
    from perceiver.positions import Fourier, Learned
    from perceiver.saving import from_pretrained
    from perceiver.spectrogram import Spectrogram
    from perceiver.tokens import Tokens
