"""Files to numpy arrays and back, on the host: no jax, no device, and nothing is unpickled."""

from perceiver.io.audio import read_audio, write_wav
from perceiver.io.images import read_image, resize_image, write_png
from perceiver.io.points import Cloud, read_points

__all__ = ["Cloud", "read_audio", "read_image", "read_points", "resize_image", "write_png", "write_wav"]
