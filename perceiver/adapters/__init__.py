"""Adapters: raw arrays of one modality to tokens."""

from perceiver.adapters.audio import LogMel, Waveform
from perceiver.adapters.base import Adapter
from perceiver.adapters.frames import FramePair
from perceiver.adapters.image import Image
from perceiver.adapters.label import Label
from perceiver.adapters.levels import Levels
from perceiver.adapters.ngrams import Ngrams
from perceiver.adapters.points import Points
from perceiver.adapters.state import State
from perceiver.adapters.text import Bytes, Subwords
from perceiver.adapters.vectors import Vectors
from perceiver.adapters.video import Video

__all__ = [
    "Adapter",
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
]
