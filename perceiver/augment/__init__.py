"""Random changes to samples on the host, one file a modality.

All randomness comes from the `np.random.Generator` that is passed, so that a stream which seeds it per sample gives the
same samples on any number of threads and after a resume. What is given is never changed, but where there is nothing to
change it may be what is returned.
"""

from perceiver.augment.audio import (
    add_noise,
    band_stop,
    change_gain,
    change_speed,
    equaliser,
    filtered,
    hide_band,
    hide_moment,
    random_equaliser,
    random_shift,
)
from perceiver.augment.images import (
    colour_jitter,
    cutout,
    flip,
    random_crop,
    random_erasing,
    random_resized_crop,
    shift_and_turn,
)
from perceiver.augment.mixing import cutmix, mixup
from perceiver.augment.points import (
    crop_range,
    drop,
    jitter,
    keep_within,
    mirror,
    scale,
    shift,
    turn_about_vertical,
    yaw,
)
from perceiver.augment.rand_augment import rand_augment
from perceiver.augment.spectrograms import (
    normalise_utterance,
    resample_time,
    spec_augment,
    warp_frequency,
    warp_time,
)
from perceiver.augment.stretching import change_pitch, change_tempo
from perceiver.augment.text import Masked, mask_bytes, mask_words

__all__ = [
    "Masked",
    "add_noise",
    "band_stop",
    "change_gain",
    "change_pitch",
    "change_speed",
    "change_tempo",
    "colour_jitter",
    "crop_range",
    "cutmix",
    "cutout",
    "drop",
    "equaliser",
    "filtered",
    "flip",
    "hide_band",
    "hide_moment",
    "jitter",
    "keep_within",
    "mask_bytes",
    "mask_words",
    "mirror",
    "mixup",
    "normalise_utterance",
    "rand_augment",
    "random_crop",
    "random_equaliser",
    "random_erasing",
    "random_resized_crop",
    "random_shift",
    "resample_time",
    "scale",
    "shift",
    "shift_and_turn",
    "spec_augment",
    "turn_about_vertical",
    "warp_frequency",
    "warp_time",
    "yaw",
]
