"""Perceiver IO on language, from raw bytes (arXiv 2107.14795, section 4.1 and appendix F).

A masked language model over 2,048 UTF-8 bytes: 201,108,230 parameters. DeepMind's tokenizer takes text as it is;
Hugging Face's reads [MASK] and the other special tokens in it, and puts [CLS] before and [SEP] behind.
"""

from typing import Any

from perceiver.adapters.text import BYTE_VOCABULARY, Bytes
from perceiver.attention import Block
from perceiver.decoders.decoder import Output
from perceiver.decoders.heads import Classes, TokenLogits
from perceiver.decoders.queries import Slots
from perceiver.encoder import Encoder
from perceiver.errors import ConfigError
from perceiver.model import PerceiverConfig
from perceiver.zoo import haiku, huggingface
from perceiver.zoo.families import Family, HubConfig, asks, labels
from perceiver.zoo.tables import Row, row

DECODER_HEADS, DECODER_QK = 8, 256


def language(length: int = 2048) -> PerceiverConfig:
    """The byte-level masked language model. It reads [MASK] in a text as one masked byte."""
    wide = Block(heads=8, qk_channels=256, v_channels=1280)
    encoder = Encoder(256, 1280, depth=26, cross=wide, latent=wide)
    narrow = Block(heads=DECODER_HEADS, qk_channels=DECODER_QK, v_channels=768, residual=False)
    return _masked(Bytes(length, 768, special=True), encoder, narrow)


def haiku_rows(config: PerceiverConfig) -> list[Row]:
    """DeepMind's names."""
    rows = haiku.encoder(config.encoder) + haiku.cross("basic_decoder/cross_attention", "decoders.text.cross")
    return [
        *rows,
        haiku.slots("basic_decoder", "text"),
        row("embed/embeddings", "adapters.text.table"),
        row("trainable_position_encoding/pos_embs", "adapters.text.position.table"),
        row("embedding_decoder/bias", "decoders.text.head.bias"),
    ]


def _masked(text: Bytes, encoder: Encoder, cross: Block) -> PerceiverConfig:
    head = TokenLogits(BYTE_VOCABULARY, tied_to="text")
    output = Output(head, Slots(text.max_length, width=text.width), cross)
    return PerceiverConfig({"text": text}, encoder, {"text": output})


# --- Hugging Face -------------------------------------------------------------------------------------------------


def _text(hub: HubConfig) -> Bytes:
    vocabulary = hub.get("vocab_size", int, BYTE_VOCABULARY)
    if vocabulary != BYTE_VOCABULARY:
        raise ConfigError(f"config.json: vocab_size: expected the {BYTE_VOCABULARY} of bytes, got {vocabulary}")
    length, width = hub.get("max_position_embeddings", int, 2048), hub.get("d_model", int, 768)
    return Bytes(length, width, special=True, enclosed=True)


def _from_masked(hub: HubConfig) -> PerceiverConfig:
    text = _text(hub)
    changes = {"heads": DECODER_HEADS, "qk_channels": DECODER_QK, "v_channels": text.width}
    cross = huggingface.decoder(hub, text.width, residual=False, **changes)
    return _masked(text, huggingface.encoder(hub), cross)


def _from_classifier(hub: HubConfig) -> PerceiverConfig:
    names = hub.names
    head = Classes(len(names) or hub.get("num_labels", int, 2), names)
    cross = huggingface.decoder(hub, hub.get("d_latents", int, 1280), residual=True)
    return PerceiverConfig({"text": _text(hub)}, huggingface.encoder(hub), {"label": Output(head, cross=cross)})


def _text_rows(config: PerceiverConfig) -> list[Row]:
    theirs = "perceiver.input_preprocessor"
    return [
        *huggingface.encoder_rows(config.encoder),
        row(f"{theirs}.embeddings.weight", "adapters.text.table"),
        row(f"{theirs}.position_embeddings.weight", "adapters.text.position.table"),
    ]


def _masked_rows(config: PerceiverConfig) -> list[Row]:
    queries = "perceiver.decoder.output_position_encodings.position_embeddings"
    return [
        *_text_rows(config),
        *huggingface.cross_rows("perceiver.decoder.decoding_cross_attention", "decoders.text.cross"),
        row(queries, "decoders.text.query.slots"),
        row("embedding_decoder.bias", "decoders.text.head.bias"),
    ]


def _hub_config(config: PerceiverConfig) -> dict[str, Any]:
    text = config.inputs["text"]
    assert isinstance(text, Bytes)
    fields = huggingface.hub_encoder(config.encoder, text.width)
    return fields | {"vocab_size": BYTE_VOCABULARY, "max_position_embeddings": text.max_length}


def _classifier_hub_config(config: PerceiverConfig) -> dict[str, Any]:
    head = config.outputs["label"].head
    assert isinstance(head, Classes)
    return _hub_config(config) | labels(head.names, head.count)


def _host_files(config: PerceiverConfig) -> dict[str, Any]:
    length = config.inputs["text"].tokens
    return {"tokenizer_config.json": {"tokenizer_class": "PerceiverTokenizer", "model_max_length": length}}


FAMILIES = [
    Family(
        "PerceiverForMaskedLM",
        asks({"text": Bytes}, text=TokenLogits),
        _from_masked,
        _masked_rows,
        _hub_config,
        host_files=_host_files,
    ),
    Family(
        "PerceiverForSequenceClassification",
        asks({"text": Bytes}, label=Classes),
        _from_classifier,
        lambda config: _text_rows(config) + huggingface.classifier_rows("label"),
        _classifier_hub_config,
        host_files=_host_files,
    ),
]
