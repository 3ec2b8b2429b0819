"""Whole networks against the reference implementation of Perceiver IO, with its weights put into ours by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import perceiver as p
from perceiver.decoders.decoder import Output
from perceiver.saving import flatten
from perceiver.tokens import Tokens
from tests.models import close, golden

ATTENTION = {"linear": "query", "linear_1": "key", "linear_2": "value", "linear_3": "out"}
CROSS = {
    **{f"attention/{theirs}": f"attention.{ours}" for theirs, ours in ATTENTION.items()},
    "layer_norm": "query_norm",
    "layer_norm_1": "key_norm",
    "layer_norm_2": "mlp.norm",
    "mlp/linear": "mlp.widen",
    "mlp/linear_1": "mlp.narrow",
}
SELF = {
    **{f"attention/{theirs}": f"attention.{ours}" for theirs, ours in ATTENTION.items()},
    "layer_norm": "norm",
    "layer_norm_1": "mlp.norm",
    "mlp/linear": "mlp.widen",
    "mlp/linear_1": "mlp.narrow",
}
NAMES = {"w": "kernel", "b": "bias", "scale": "scale", "offset": "bias"}


def weights(arrays, decoder, depth):
    """Haiku's parameters by our names. decoder: where Haiku has the decoder, to which ours is `decoder`."""
    given = {key.removeprefix("params/"): array for key, array in arrays.items() if key.startswith("params/")}
    found = {"encoder.latents": given["perceiver_encoder/~/trainable_position_encoding/pos_embs"]}
    found["decoder.query.slots"] = given[f"{decoder}/~/trainable_position_encoding/pos_embs"]
    for ours, theirs in (("encoder.cross.0", "perceiver_encoder/~"), ("decoder.cross", decoder)):
        for source, target in CROSS.items():
            for short, long in NAMES.items():
                if (array := given.get(f"{theirs}/cross_attention/{source}/{short}")) is not None:
                    found[f"{ours}.{target}.{long}"] = array
    for source, target in SELF.items():
        for short, long in NAMES.items():
            layers = ["self_attention", *(f"self_attention_{i}" for i in range(1, depth))]
            parts = [given.get(f"perceiver_encoder/~/{layer}/{source}/{short}") for layer in layers]
            if parts[0] is not None:
                found[f"encoder.towers.0.layers.{target}.{long}"] = np.stack(parts)
    for short in ("w", "b"):
        if f"{decoder}/output/{short}" in given:
            found[f"decoder.head.linear.{NAMES[short]}"] = given[f"{decoder}/output/{short}"]
    return found, given


class Network(nnx.Module):
    """Encoder and decoder without adapter."""

    def __init__(self, width, encoder, output):
        kind = {"dtype": jnp.dtype("float32"), "rngs": nnx.Rngs(0)}
        self.encoder = encoder.build(width, **kind)
        self.decoder = output.build(encoder.channels, {}, **kind)

    def __call__(self, tokens, tables):
        latents = self.encoder(tokens)
        return latents, self.decoder(latents, {}, tables)


def check(case, encoder, output, decoder, tokens, tables=None, more=None, shown=None):
    arrays = case[1]
    found, given = weights(arrays, decoder, encoder.depth)
    found |= {} if more is None else more(given)
    graph, state = nnx.split(nnx.eval_shape(lambda: Network(tokens.channels, encoder, output)))
    assert found.keys() == flatten(state).keys()
    leaves = [jnp.asarray(found[name]) for name in flatten(state)]
    module = nnx.merge(graph, jax.tree.unflatten(jax.tree.structure(state), leaves))
    with jax.default_matmul_precision("highest"):
        latents, answers = nnx.jit(lambda m: m(tokens, tables or {}))(module)
    if "inter/encoder_latents" in arrays:
        close(latents, arrays["inter/encoder_latents"])
    expected = next(array for key, array in arrays.items() if key in ("outputs/output", "outputs/logits"))
    close(*[array if shown is None else array[shown] for array in (np.asarray(answers), expected)])


def reference(name):
    case = golden(name)
    return case if case is not None else pytest.skip(f"no {name} in the folder of reference outputs")


def test_imagenet_with_fourier_features():
    case = reference("dm_imagenet_fourier")
    adapter = p.Image((16, 16, 3), position=p.Fourier(bands=6))
    module = adapter.build(dtype=jnp.dtype("float32"), rngs=nnx.Rngs(0))
    encoder = p.Encoder(8, 32, depth=2, towers=(0, 0))
    tokens = module(case[1]["inputs/x"])
    check(case, encoder, Output(p.Classes(11)), "classification_decoder/~/basic_decoder", tokens)


def test_query_key_widths_other_than_the_values():
    case = reference("dm_qk_ne_v")
    encoder = p.Encoder(
        6,
        32,
        depth=2,
        cross=p.Block(heads=2, qk_channels=16, v_channels=32),
        latent=p.Block(heads=4, qk_channels=16, v_channels=32),
        towers=(0, 0),
    )
    output = Output(p.Dense(7), p.Slots(5, width=18), p.Block(heads=2, qk_channels=12, v_channels=20))
    check(case, encoder, output, "basic_decoder", Tokens(jnp.asarray(case[1]["inputs/x"])))


@pytest.mark.parametrize("name", ["dm_mlm", "dm_mlm_masks", "dm_mlm_nomask"])
def test_masked_language_model_with_a_tied_embedding(name):
    """Compared where the reference's query mask is 1: ours has none, whatever is asked is answered."""
    case = reference(name)
    arrays = case[1]
    wide = p.Block(heads=8, qk_channels=24, v_channels=48)
    encoder = p.Encoder(10, 48, depth=2, cross=wide, latent=wide, towers=(0, 0))
    narrow = p.Block(heads=8, qk_channels=24, v_channels=32, residual=False)
    output = Output(p.TokenLogits(262, tied_to="text"), p.Slots(24, width=32), narrow)
    text = p.Bytes(24, width=32).build(dtype=jnp.dtype("float32"), rngs=nnx.Rngs(0))
    table = jnp.asarray(arrays["params/embed/embeddings"])
    text.table[...] = table
    text.position.table[...] = jnp.asarray(arrays["params/trainable_position_encoding/pos_embs"])
    ids = arrays["inputs/x"]
    mask = arrays.get("inputs/input_mask", np.ones_like(ids)).astype(bool)
    shown = arrays.get("inputs/query_mask", np.ones_like(ids)).astype(bool)

    def bias(given):
        return {"decoder.head.bias": given["embedding_decoder/bias"]}

    check(case, encoder, output, "basic_decoder", text(ids, mask), {"text": table}, bias, shown)
