import jax
import pytest
from flax import nnx

import perceiver as p
from benchmarks import counting, models
from benchmarks.cases import CASES, Contrastive, Policy
from perceiver.adapters.vectors import Vectors
from perceiver.attend import Backend
from perceiver.attention import Block
from perceiver.convolutions import ConvStem
from perceiver.decoders import Classes, Dense, Output, Slots, TokenLogits, Trunk
from perceiver.encoder import Encoder
from perceiver.positions import Fourier, Learned, Projected

# One block of one layer, since XLA counts the body of a loop once whatever the number of its rounds.
ENCODER = Encoder(64, 128, 1, cross=Block(heads=1), latent=Block(heads=4, qk_channels=64, v_channels=256, widening=2))


@pytest.fixture(autouse=True)
def plain_attention(monkeypatch):
    """The formula counts the network as it is written down; folding the projections of a cross-attend saves some."""
    monkeypatch.setattr("perceiver.attention.choose_backend", lambda problem: Backend.XLA)


def xla_flops(function, *arguments):
    return jax.jit(function).lower(*arguments).cost_analysis()["flops"]


def perceiver_flops(config, batch=1):
    graph, state = nnx.split(config.abstract())
    inputs = {name: adapter.example(batch) for name, adapter in config.inputs.items()}
    return xla_flops(lambda state, inputs: nnx.merge(graph, state)(inputs), state, inputs)


CONFIGS = {
    "tokens": p.PerceiverConfig(
        {"tokens": Vectors(512, 96)}, ENCODER, {"dense": Output(Dense(24), Slots(256, 160), Block(qk_channels=32))}
    ),
    "picture": p.PerceiverConfig(
        {"image": p.Image((32, 32, 3), project=64, position=Projected(Learned(64), 64))},
        ENCODER,
        {"label": Output(Classes(1000))},
    ),
    "convolutions": p.PerceiverConfig(
        {"image": p.Image((64, 64, 3), stem=ConvStem(64), position=Fourier(16))}, ENCODER, {"label": Classes(10)}
    ),
    "text": p.PerceiverConfig(
        {"text": p.Bytes(256, 128)},
        ENCODER,
        {"text": Output(TokenLogits(262, tied_to="text"), Slots(256, width=128), Block(heads=4, residual=False))},
    ),
    "trunk": p.PerceiverConfig(
        {"tokens": Vectors(256, 96)},
        ENCODER,
        {"dense": Output(Dense(64), Slots(256, 128), trunk="joint")},
        trunks={"joint": Trunk(130, Block(residual=False), 256)},
    ),
    "bins": p.PerceiverConfig(
        {"tokens": Vectors(256, 96)}, ENCODER, {"action": p.BinnedChunk(64, 8, low=(-1.0,) * 8, high=(1.0,) * 8)}
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_formula_is_what_xla_counts(name):
    # XLA's figure has the elementwise work besides.
    assert perceiver_flops(CONFIGS[name]) == pytest.approx(counting.forward_flops(CONFIGS[name]), rel=0.06)


def test_a_flow_is_counted_for_one_of_its_steps():
    head = p.FlowChunk(128, 8, mixing=Block(heads=4))
    config = p.PerceiverConfig({"tokens": Vectors(256, 96)}, ENCODER, {"action": head})
    graph, state = nnx.split(config.abstract())
    inputs = {"tokens": config.inputs["tokens"].example(1)}
    noisy = {"action": jax.ShapeDtypeStruct((1, 128, 9), "float32")}
    found = xla_flops(lambda state, *given: nnx.merge(graph, state)(given[0], queries=given[1]), state, inputs, noisy)
    assert found == pytest.approx(counting.forward_flops(config), rel=0.06)


def test_training_is_three_times_the_forward_pass():
    config = CONFIGS["tokens"]
    graph, state = nnx.split(config.abstract())
    inputs = {"tokens": config.inputs["tokens"].example(1)}

    def loss(state, inputs):
        return nnx.merge(graph, state)(inputs)["dense"].sum()

    found = xla_flops(jax.grad(loss), state, inputs)
    # The gradients of the inputs themselves, which nobody asks for, are the part that is missing.
    assert found == pytest.approx(counting.step_flops(config), rel=0.12)


def test_towers_are_counted_too():
    case = Contrastive(1, depth=1)
    config = models.config(case)
    graph, state = nnx.split(config.abstract())
    pixels = jax.ShapeDtypeStruct((1, case.side, case.side, 3), "float32")
    ids = jax.ShapeDtypeStruct((1, case.length), "int32")

    def embed(state, pixels, ids):
        model = nnx.merge(graph, state)
        return model.embed_image(pixels), model.embed_text(ids)

    assert xla_flops(embed, state, pixels, ids) == pytest.approx(counting.forward_flops(config), rel=0.06)


def test_fewer_questions_cost_less():
    config = CONFIGS["tokens"]
    all_of_them, some = counting.forward_flops(config), counting.forward_flops(config, {"dense": 16})
    assert some < all_of_them


def test_the_imagenet_model_costs_what_the_paper_says():
    # Perceiver IO (arXiv 2107.14795) reports 407 billion FLOPs, a multiplication and an addition counted as two.
    flops = counting.forward_flops(models.config(CASES["forward/imagenet_fourier"]))
    assert flops == pytest.approx(407e9, rel=0.02)


def test_bytes_are_at_least_the_weights():
    assert counting.forward_bytes(10, 3, 4) == 47
    assert counting.step_bytes(10, 3) == 323


@pytest.mark.parametrize("case", [case for case in CASES.values() if isinstance(case, Policy)])
def test_peers_get_tokens_as_wide_as_ours(case):
    config = models.config(case)
    assert config.token_channels == case.channels
    assert sum(adapter.tokens for adapter in config.inputs.values()) == case.tokens
