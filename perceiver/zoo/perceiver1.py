"""The first Perceiver (arXiv 2103.03206): it looks at its inputs again and again, and answers from the latents' mean.

No weights were released. Every look but the first shares its weights, as do all blocks of self-attention.
"""

from perceiver.adapters.audio import LogMel, Waveform
from perceiver.adapters.image import Image
from perceiver.adapters.points import Points
from perceiver.adapters.video import Video
from perceiver.decoders.decoder import Pooled
from perceiver.decoders.heads import Classes
from perceiver.encoder import Encoder
from perceiver.model import PerceiverConfig
from perceiver.positions import Fourier
from perceiver.spectrogram import Spectrogram
from perceiver.zoo.imagenet import IMAGENET

AUDIOSET_RATE, AUDIOSET_SAMPLES, AUDIOSET_CLASSES = 48_000, 61_440, 527


def repeated(looks: int, depth: int, latents: int = 512, channels: int = 1024) -> Encoder:
    """An encoder of `looks` cross-attends, the first with weights of its own, each before `depth` self-attends."""
    shared = (0, *(1,) * (looks - 1))
    return Encoder(latents, channels, depth, cross_attends=shared, towers=(0,) * looks)


def imagenet(classes: int = 1000) -> PerceiverConfig:
    """ImageNet from pixels, 8 looks of 6 self-attends: 44.9 million parameters, top-1 78.0 % in the paper."""
    image = Image((224, 224, 3), position=Fourier(64, (224.0, 224.0)), **IMAGENET)
    return PerceiverConfig({"image": image}, repeated(8, 6), {"label": Pooled(Classes(classes))})


def modelnet40(points: int = 2048, classes: int = 40) -> PerceiverConfig:
    """ModelNet40 clouds in the unit cube, 2 looks of 6 self-attends, 64 bands up to 1120: 85.7 % in the paper.

    Ten times the highest frequency for images, since points lie nearer to each other than pixels. The coordinates
    themselves come once, as the points' values.
    """
    position = Fourier(64, (2240.0, 2240.0, 2240.0), concatenate=False)
    cloud = Points(points, (-1.0, -1.0, -1.0), (1.0, 1.0, 1.0), position=position)
    return PerceiverConfig({"points": cloud}, repeated(2, 6), {"label": Pooled(Classes(classes))})


def audioset_waveform() -> PerceiverConfig:
    """AudioSet from 1.28 s of raw sound at 48 kHz, in 480 runs of 128 samples."""
    return _audioset({"audio": _waveform()})


def audioset_mel() -> PerceiverConfig:
    """AudioSet from a log-mel spectrogram of the same sound: 128 mels every 10 ms."""
    mels = Spectrogram(frame_length=1200, hop=480, sample_rate=AUDIOSET_RATE, mels=128)
    position = Fourier(64, (128.0, 128.0))
    audio = LogMel(AUDIOSET_SAMPLES, mels, sample_rate=AUDIOSET_RATE, patch=(1, 16), position=position)
    return _audioset({"audio": audio})


def audioset_video() -> PerceiverConfig:
    """AudioSet from 32 frames of 224 x 224 in 2 x 8 x 8 patches."""
    return _audioset({"image": _video()})


def audioset() -> PerceiverConfig:
    """AudioSet from sound and picture together, each token marked by its modality."""
    return _audioset({"audio": _waveform(), "image": _video()})


def _waveform() -> Waveform:
    return Waveform(AUDIOSET_SAMPLES, AUDIOSET_RATE, patch=128, position=Fourier(64, (480.0,)))


def _video() -> Video:
    return Video((32, 224, 224, 3), (2, 8, 8), position=Fourier(64, (16.0, 28.0, 28.0)))


def _audioset(inputs) -> PerceiverConfig:
    """Several of the labels may hold at once: train with a sigmoid for each, not a softmax over all.

    The inputs are those of the paper's section 4.2. Depth and widths are ours: the paper's were not at hand to check.
    """
    return PerceiverConfig(inputs, repeated(12, 8, 512, 512), {"label": Pooled(Classes(AUDIOSET_CLASSES))})
