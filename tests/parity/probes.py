"""What goes on inside a Perceiver, step by step, under the names that the reference cases use."""

import jax
import jax.numpy as jnp
from flax import nnx

from perceiver.decoders.decoder import Decoder
from perceiver.tokens import Tokens


def layers(stack):
    """The self-attends of a Stack, one by one."""
    graph, state = nnx.split(stack.layers)
    return [nnx.merge(graph, jax.tree.map(lambda leaf, i=i: leaf[i], state)) for i in range(stack.depth)]


def encode(encoder, joined):
    """Latents before, after the first cross-attend, after each self-attend [layers, b, n, c], and at the end."""
    start = encoder.start(joined)
    x = encoder.cross[encoder.config.cross_attends[0]](start, joined)
    found = {"encoder_latents_init": start, "encoder_cross_attention_out": x}
    outs = []
    for tower in encoder.config.towers:
        for layer in layers(encoder.towers[tower]):
            x = layer(x)
            outs.append(x)
    return found | {"encoder_self_attend_outs": jnp.stack(outs), "encoder_latents": x}


def decode(model, latents, tokens, queries, looking):
    """Queries of all outputs, joined in the order of their names, and what the cross-attend makes of them."""
    asked, seen, projected = [], [], []
    for name in sorted(model.decoders):
        decoder = model.decoders[name]
        if not isinstance(decoder, Decoder):
            return {}
        question = decoder.ask(latents.shape[0], queries.get(name), tokens)
        trunk = None if decoder.config.trunk is None else model.trunks[decoder.config.trunk]
        cross = decoder.cross if trunk is None else trunk.cross
        answer = cross(question.values, Tokens(latents), looking=looking.get(name))
        asked.append(question.values)
        seen.append(answer)
        if trunk is not None:
            projected.append(trunk.project(answer))
        elif hasattr(decoder.head, "linear"):
            projected.append(decoder.head.linear(answer))
        else:
            projected.append(answer)
    names = ("decoder_query", "decoder_cross_attention_out", "basic_decoder_out")
    return {n: jnp.concatenate(parts, axis=1) for n, parts in zip(names, (asked, seen, projected), strict=True)}


def inside(model, inputs, masks, queries=None, looking=None, key=None):
    """Every intermediate value of a call, by name."""
    tokens = model.tokenise(inputs, masks, key=key)
    joined = model.join(tokens)
    encoded = encode(model.encoder, joined)
    decoded = decode(model, encoded["encoder_latents"], tokens, queries or {}, looking or {})
    return {"tokens": tokens, "encoder_inputs": joined.values} | encoded | decoded
