"""Decoders: queries, heads, and the outputs that join them."""

from perceiver.decoders.decoder import Output, Pooled, Trunk
from perceiver.decoders.heads import (
    ActionSlots,
    Chunk,
    Classes,
    Dense,
    Embedding,
    Flow,
    Head,
    Regression,
    SoundPatches,
    TokenLogits,
)
from perceiver.decoders.queries import AtPoints, AtTimes, FromTokens, Grid, Query, Slots, WithInput

__all__ = [
    "ActionSlots",
    "AtPoints",
    "AtTimes",
    "Chunk",
    "Classes",
    "Dense",
    "Embedding",
    "Flow",
    "FromTokens",
    "Grid",
    "Head",
    "Output",
    "Pooled",
    "Query",
    "Regression",
    "Slots",
    "SoundPatches",
    "TokenLogits",
    "Trunk",
    "WithInput",
]
