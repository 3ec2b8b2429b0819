"""Decoders: queries, heads, and the outputs that join them."""

from perceiver.decoders.actions import ActionHead, ActionSlots, BinnedChunk, Chunk, FlowChunk, NoisyActions
from perceiver.decoders.decoder import Output, Pooled, Trunk
from perceiver.decoders.heads import (
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
from perceiver.decoders.transcripts import CTC

__all__ = [
    "CTC",
    "ActionHead",
    "ActionSlots",
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
    "Head",
    "NoisyActions",
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
