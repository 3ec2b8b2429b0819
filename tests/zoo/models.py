"""Models for the tests of weights."""

import dataclasses

from perceiver.pretrained import convert
from perceiver.saving import weights, with_weights


def from_hub(files):
    """The model in a folder of the Hub's layout."""
    return convert(files)


def raw_numbers(model):
    """The same model without mean and deviation, for inputs that have been normalised already."""
    inputs = {
        name: dataclasses.replace(adapter, mean=(), std=()) if hasattr(adapter, "mean") else adapter
        for name, adapter in model.config.inputs.items()
    }
    return with_weights(dataclasses.replace(model.config, inputs=inputs), weights(model), "raw")
