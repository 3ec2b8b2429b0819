"""Decoders: queries, heads, and the outputs that join them."""

from perceiver.decoders.decoder import Output
from perceiver.decoders.heads import (
    ActionSlots,
    Chunk,
    Classes,
    Dense,
    Embedding,
    Head,
    Regression,
    TokenLogits,
)
from perceiver.decoders.queries import AtPoints, AtTimes, FromTokens, Grid, Query, Slots

__all__ = [
    "ActionSlots",
    "AtPoints",
    "AtTimes",
    "Chunk",
    "Classes",
    "Dense",
    "Embedding",
    "FromTokens",
    "Grid",
    "Head",
    "Output",
    "Query",
    "Regression",
    "Slots",
    "TokenLogits",
]
