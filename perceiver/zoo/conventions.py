"""The same weights under DeepMind's conventions, where Hugging Face's code computes something else than was trained."""

import dataclasses
from typing import Any

from perceiver.adapters.image import Image
from perceiver.attention import Activation, Block
from perceiver.convolutions import Padding
from perceiver.decoders.decoder import Output
from perceiver.model import Perceiver
from perceiver.saving import weights, with_weights


def as_deepmind(model: Perceiver) -> Perceiver:
    """A Perceiver IO from the Hub, computing as DeepMind's code does with the same weights.

    GELU by its tanh approximation instead of erf; latents that may look at nothing get zeros instead of a mean; the
    convolutions padded as in TensorFlow; no residual from the query in the model with learned positions.

    Of the model with convolutions, transformers' conversion script transposed rows and columns of the kernels. Whether
    the published file has them so could not be checked here; if it has, swap axes 0 and 1 of
    adapters.image.stem.convolutions.0.kernel.
    """
    config = model.config
    image = config.inputs.get("image")
    learned = isinstance(image, Image) and image.project is not None
    inputs = dict(config.inputs)
    if isinstance(image, Image) and image.stem is not None:
        inputs["image"] = dataclasses.replace(image, stem=dataclasses.replace(image.stem, padding=Padding.SAME))
    encoder = dataclasses.replace(
        config.encoder, cross=_block(config.encoder.cross), latent=_block(config.encoder.latent)
    )
    outputs = {name: _output(output, learned) for name, output in config.outputs.items()}
    trunks = {name: dataclasses.replace(trunk, cross=_block(trunk.cross)) for name, trunk in config.trunks.items()}
    new = dataclasses.replace(config, inputs=inputs, encoder=encoder, outputs=outputs, trunks=trunks)
    return with_weights(new, weights(model), "as_deepmind")


def _block(block: Block, **changes: Any) -> Block:
    tanh = Activation.GELU_TANH if block.activation is Activation.GELU_ERF else block.activation
    return dataclasses.replace(block, activation=tanh, mean_when_blind=False, **changes)


def _output(output: Any, learned: bool) -> Any:
    if not isinstance(output, Output) or output.trunk is not None:
        return output
    changes = {"residual": False} if learned else {}
    return dataclasses.replace(output, cross=_block(output.cross, **changes))
