"""DeepMind's own Perceiver IO in Haiku, from a checkout of deepmind-research on the import path."""

import haiku as hk
import jax
import numpy as np

from benchmarks import inputs
from benchmarks.cases import Canonical, Case, Forward
from benchmarks.peers.contract import Built, NoSuchModelError, Variant
from perceiver import io_processors, perceiver

POSITION = {"num_bands": 64, "max_resolution": (224, 224), "sine_only": False, "concat_pos": True}
ENCODER = {
    "num_self_attends_per_block": 6,
    "num_blocks": 8,
    "z_index_dim": 512,
    "num_z_channels": 1024,
    "num_cross_attend_heads": 1,
    "num_self_attend_heads": 8,
    "cross_attention_shape_for_attn": "kv",
    "use_query_residual": True,
}
"""As in its train/experiment.py."""


def load(threads: int) -> dict:
    """See `contract`."""
    del threads
    jax.block_until_ready(jax.jit(lambda x: x @ x)(np.ones((64, 64), np.float32)))
    return {"jax": jax.__version__, "dm-haiku": hk.__version__}


def build(case: Case, variant: Variant) -> Built:
    """See `contract`."""
    del variant
    if not isinstance(case, Forward) or case.model is not Canonical.IMAGENET_FOURIER:
        raise NoSuchModelError("of DeepMind's code the forward pass of ImageNet Fourier is measured, nothing else")
    model = hk.transform_with_state(_classify)
    pictures = (inputs.pictures(case.batch) - inputs.MEAN) / inputs.STD
    parameters, state = jax.jit(model.init)(jax.random.key(0), pictures)
    count = sum(leaf.size for leaf in jax.tree.leaves(parameters))

    @jax.jit
    def answer(parameters, state, pictures):
        # It draws a key for dropout even where its rate is 0.
        return model.apply(parameters, state, jax.random.key(0), pictures)[0]

    return Built(
        lambda: jax.block_until_ready(answer(parameters, state, pictures)), lambda out: {"": list(out.shape)}, count
    )


def _classify(pictures):
    position = {"num_channels": 1024, "init_scale": 0.02}
    decoder = perceiver.ClassificationDecoder(
        inputs.CLASSES,
        num_z_channels=1024,
        use_query_residual=True,
        position_encoding_type="trainable",
        trainable_position_encoding_kwargs=position,
    )
    preprocessor = io_processors.ImagePreprocessor(
        position_encoding_type="fourier",
        fourier_position_encoding_kwargs=POSITION,
        prep_type="pixels",
        spatial_downsample=1,
    )
    model = perceiver.Perceiver(
        encoder=perceiver.PerceiverEncoder(**ENCODER), decoder=decoder, input_preprocessor=preprocessor
    )
    return model(pictures, is_training=False)
