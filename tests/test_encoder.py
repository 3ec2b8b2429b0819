import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import perceiver as p
from perceiver.errors import ConfigError
from perceiver.model import parameter_count
from perceiver.tokens import Tokens
from tests.models import close, filled

FLOAT = jnp.dtype("float32")
TOKENS = Tokens(np.random.default_rng(0).normal(size=(2, 7, 6)).astype(np.float32), np.arange(7) < np.array([[4], [7]]))


def build(**fields):
    config = p.Encoder(**{"latents": 3, "channels": 8, "depth": 2, "latent": p.Block(heads=2), **fields})
    return filled(lambda rngs: config.build(6, dtype=FLOAT, rngs=rngs))


@nnx.jit
def unrolled(module, tokens):
    """The encoder written out, one block after another."""
    x = module.start(tokens)
    for step, tower in enumerate(module.config.towers):
        if step < len(module.config.cross_attends):
            x = module.cross[module.config.cross_attends[step]](x, tokens)
        x = module.towers[tower](x)
    return x


@pytest.mark.parametrize(
    "plan",
    [
        {"towers": (0, 0, 0)},
        {"cross_attends": (0, 1, 1, 1), "towers": (0, 0, 0, 0)},
        {"cross_attends": (1, 0), "towers": (0, 1, 0)},
    ],
    ids=["Perceiver IO", "Perceiver 1", "mixed"],
)
def test_blocks_run_in_the_order_and_with_the_weights_that_are_written_down(plan):
    module = build(**plan)
    assert len(module.cross) == len(set(plan.get("cross_attends", (0,))))
    assert len(module.towers) == len(set(plan["towers"]))
    close(nnx.jit(lambda m, tokens: m(tokens))(module, TOKENS), unrolled(module, TOKENS))


def test_repeating_a_tower_costs_no_parameters_and_another_tower_does():
    def count(towers):
        return parameter_count(nnx.eval_shape(lambda: build(towers=towers)))

    assert count((0, 0, 0)) == count((0,))
    one_layer = 2 * 2 * 8 + 6 * (8 * 8 + 8)
    assert count((0, 1)) - count((0,)) == 2 * one_layer


@pytest.mark.slow
def test_recomputing_changes_neither_values_nor_gradients():
    def loss(module):
        return (module(TOKENS, key=jax.random.key(0)) ** 2).sum()

    block = p.Block(heads=2, dropout=0.2)
    kept, recomputed = (
        nnx.jit(nnx.value_and_grad(loss))(build(latent=block, towers=(0, 0), remat=remat)) for remat in (False, True)
    )
    for have, want in zip(jax.tree.leaves(recomputed), jax.tree.leaves(kept), strict=True):
        close(have, want)


def test_dropout_depends_on_its_key_alone():
    module = build(depth=1, towers=(0, 0), latent=p.Block(dropout=0.5), cross=p.Block(dropout=0.5))
    run = nnx.jit(lambda m, key: m(TOKENS, key=key))
    first, again, other = (run(module, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_latents_start_the_same_for_every_sample():
    module = build()
    np.testing.assert_array_equal(module.start(TOKENS), np.stack([module.latents[...]] * 2))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"latents": 0}, "at least one latent"),
        ({"depth": 0}, "one self-attend per tower"),
        ({"cross_attends": ()}, "between 1 and 1 cross_attends"),
        ({"cross_attends": (0, 0)}, "between 1 and 1 cross_attends .*, got 2"),
        ({"cross_attends": (1,)}, "cross_attends must number its weight sets 0, 1, 2, ..., got .1."),
        ({"towers": (0, 2)}, r"towers must number its weight sets 0, 1, 2, ..., got \[0, 2\]"),
    ],
)
def test_an_encoder_that_cannot_be_built_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        p.Encoder(**{"latents": 3, "channels": 8, "depth": 2, **fields})


def test_the_released_imagenet_model_has_its_published_number_of_parameters():
    config = p.PerceiverConfig(
        inputs={"image": p.Image((224, 224, 3), position=p.Fourier(bands=64))},
        encoder=p.Encoder(512, 1024, depth=6, towers=(0,) * 8),
        outputs={"label": p.Classes(1000)},
    )
    assert config.token_channels == 261
    assert parameter_count(config.abstract()) == 48_440_627


def test_the_released_byte_model_has_its_published_number_of_parameters():
    config = p.PerceiverConfig(
        inputs={"text": p.Bytes(2048, width=768)},
        encoder=p.Encoder(
            256,
            1280,
            depth=26,
            cross=p.Block(heads=8, qk_channels=256, v_channels=1280),
            latent=p.Block(heads=8, qk_channels=256, v_channels=1280),
        ),
        outputs={
            "text": p.Output(
                p.TokenLogits(262, tied_to="text"),
                p.Slots(2048, width=768),
                p.Block(heads=8, qk_channels=256, v_channels=768, residual=False),
            )
        },
    )
    assert parameter_count(config.abstract()) == 201_108_230
