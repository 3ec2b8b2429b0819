"""A trained model made smaller: weights in fewer bits, fewer latents and layers."""

import dataclasses
from typing import Any

from perceiver.encoder import Encoder
from perceiver.errors import ConfigError
from perceiver.model import Compute, Model, Perceiver, PerceiverConfig
from perceiver.quantised import Weights, store
from perceiver.saving import float32_weights, with_weights
from perceiver.saving import weights as weights_of


def quantise(model: Model, weights: Weights, compute: Compute | None = None) -> Any:
    """The same model with its weights stored in fewer bits, and perhaps another dtype of the computation.

    Any model, wherever it came from; it is saved and loaded as any other, in a half or a quarter of the bytes. Which
    parameters are concerned: see `Weights`. What is done to them, and why by code of our own: see `quantised.py`.

    weights: FLOAT32 turns a model back into one that can be trained and written for transformers; what was rounded
        away stays away.
    compute: None keeps it. BFLOAT16 halves the memory of what lies between the layers, and is what the units for
        matrices of GPUs and TPUs are fast at; CPUs mostly are not.

    Raises:
        ConfigError: a config class of your own that has no fields `weights` and `compute`.
    """
    given = model.config
    if missing := {"weights", "compute"} - {field.name for field in dataclasses.fields(given)}:
        raise ConfigError(f"{type(given).__name__}: expected fields weights and compute, lacks {', '.join(missing)}")
    config = dataclasses.replace(given, weights=weights, compute=given.compute if compute is None else compute)
    plain = dataclasses.replace(config, weights=Weights.FLOAT32)
    stored = with_weights(plain, float32_weights(model), "quantise")
    store(stored, weights)
    return with_weights(config, weights_of(stored), "quantise")


def reduced(model: Perceiver, latents: int | None = None, depth: int | None = None) -> Perceiver:
    """The first `latents` latents and the first `depth` self-attends of each tower of a model, as a model of its own.

    It computes what the whole model computes in training when it draws this size, in less time and with fewer
    parameters, and is saved, loaded and trained on as any other. None keeps what there is. A tower that runs several
    times keeps running as often: the number of looks and of towers stays.

    Raises:
        ConfigError: a model without latents (ViT, CLIP) or with several levels of them (HiP), or a size that the model
            was not trained for: see `Encoder.min_latents` and `min_depth`.
    """
    if not isinstance(model, Perceiver):
        raise ConfigError(f"expected a Perceiver, whose latents and depth are a choice, got a {type(model).__name__}")
    config = _reduced_config(model.config, latents, depth)
    encoder = config.encoder

    def cut(name: str, value: Any) -> Any:
        if name == "encoder.latents" or name.startswith("encoder.latents."):
            return value[: encoder.latents]
        return value[: encoder.depth] if name.startswith("encoder.towers.") else value

    return with_weights(config, {n: cut(n, value) for n, value in weights_of(model).items()}, "reduced")


def _reduced_config(config: PerceiverConfig, latents: int | None, depth: int | None) -> PerceiverConfig:
    encoder = config.encoder
    changes = _choice(encoder, "latents", latents) | _choice(encoder, "depth", depth)
    return dataclasses.replace(config, encoder=dataclasses.replace(encoder, **changes))


def _choice(encoder: Encoder, name: str, wanted: int | None) -> dict[str, Any]:
    most, least = getattr(encoder, name), getattr(encoder, f"min_{name}")
    if wanted is None or wanted == most:
        return {}
    if least is None:
        raise ConfigError(
            f"{name}: expected {most}, got {wanted}; the model was trained at one size (Encoder.min_{name} is None)"
        )
    if not least <= wanted <= most:
        raise ConfigError(f"{name}: expected {least} to {most}, which the model was trained for, got {wanted}")
    return {name: wanted}
