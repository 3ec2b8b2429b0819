"""Files to numpy arrays and back, on the host: no jax, no device, and nothing is unpickled."""

from perceiver.io.audio import read_audio, trim_silence, write_wav
from perceiver.io.images import Fit, Resample, frame_image, read_image, resize_image, write_gif, write_png
from perceiver.io.points import Cloud, read_points
from perceiver.io.video import read_video, read_video_audio

__all__ = [
    "Cloud",
    "Fit",
    "Resample",
    "frame_image",
    "read_audio",
    "read_image",
    "read_points",
    "read_video",
    "read_video_audio",
    "resize_image",
    "trim_silence",
    "write_gif",
    "write_png",
    "write_wav",
]
