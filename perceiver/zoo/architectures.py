"""Every architecture of the Hub that can be read and written, by its name in config.json."""

import functools
from types import ModuleType
from typing import Any

from perceiver.config import Json, network_json, suggestion
from perceiver.dual import DualEncoderConfig, ImageClassifierConfig
from perceiver.errors import ConfigError
from perceiver.model import ModelConfig
from perceiver.zoo import clip, flow, imagenet, kinetics, language, siglip, vit
from perceiver.zoo.families import Family, HubConfig
from perceiver.zoo.preprocessing import Processor, preprocessor_json


def _towers(module: ModuleType, kind: Processor) -> list[Family]:
    """The families of a file about models of towers."""

    def host_files(config: Any) -> dict[str, Any]:
        files: dict[str, Any] = {"preprocessor_config.json": preprocessor_json(config.image.image, kind)}
        prompts = config.text.prompts if isinstance(config, DualEncoderConfig) else None
        return files if prompts is None else files | {"tokenizer.json": prompts.tokenizer}

    def fits(name: str, config: ModelConfig) -> bool:
        if not isinstance(config, DualEncoderConfig | ImageClassifierConfig):
            return False
        try:
            return module.hub_config(config)["architectures"] == [name]
        except ConfigError:
            return False

    return [
        Family(
            name,
            functools.partial(fits, name),
            lambda hub: module.config(hub.values, hub.preprocessor, hub.tokenizer),
            module.rows,
            module.hub_config,
            module.IGNORED,
            host_files,
        )
        for name in module.ARCHITECTURES
    ]


FAMILIES: dict[str, Family] = {
    family.architecture: family
    for family in [
        *imagenet.FAMILIES,
        *language.FAMILIES,
        *flow.FAMILIES,
        *kinetics.FAMILIES,
        *_towers(vit, Processor.VIT),
        *_towers(clip, Processor.CLIP),
        *_towers(siglip, Processor.SIGLIP),
    ]
}


def family_of(hub: HubConfig, where: str) -> Family:
    """The family that a config.json names.

    Raises:
        ConfigError: none that we know, after `where`.
    """
    named = [str(name) for name in hub.get("architectures", list, [])]
    for name in named:
        if name in FAMILIES:
            return FAMILIES[name]
    kind = hub.get("model_type", str, "none")
    first = named[0] if named else "none"
    raise ConfigError(f"{where}: unknown architecture {first} of model_type {kind}; {suggestion(first, FAMILIES)}")


HARMLESS = {
    "attention_dropout",
    "chunk",
    "compute",
    "dropout",
    "latent_scale",
    "log_scale",
    "bias",
    "mean_when_blind",
    "min_depth",
    "min_latents",
    "modality_dropout",
    "remat",
    "scale",
}
"""Fields that leave a trained model's answers as they are: how it starts, trains and computes, and what a latent gets
that may look at nothing at all."""


def written_as(config: ModelConfig) -> tuple[Family, dict[str, Any], dict[str, Any]]:
    """The family that a model can be written in, its config.json, and the further files (`Family.host_files`).

    Raises:
        ConfigError: there is none, or its code computes something else; the fields that differ are named.
    """
    reasons = []
    for family in FAMILIES.values():
        if not family.fits(config):
            continue
        values = {"architectures": [family.architecture]} | family.hub_config(config)
        files = family.host_files(config)
        back = family.config(HubConfig(values, files.get("preprocessor_config.json"), files.get("tokenizer.json")))
        different = _differences(network_json(config), network_json(back), "")
        if not different:
            return family, values, files
        reasons.append(f"{family.architecture} differs in {', '.join(different[:5])}")
    raise ConfigError(f"transformers has no equal of this model: {'; '.join(reasons) or 'no architecture fits it'}")


def _differences(ours: Json, theirs: Json, where: str) -> list[str]:
    """Paths at which two configs compute differently."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        names = sorted((ours.keys() | theirs.keys()) - HARMLESS)
        return [
            d for name in names for d in _differences(ours.get(name), theirs.get(name), f"{where}.{name}".lstrip("."))
        ]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [
            d for i, pair in enumerate(zip(ours, theirs, strict=True)) for d in _differences(*pair, f"{where}[{i}]")
        ]
    return [] if ours == theirs else [f"{where} ({ours!r:.40} here, {theirs!r:.40} there)"]
