"""What the Hierarchical Perceiver is beyond the reference's numbers, which tests/parity/hip.py compares with."""

import dataclasses
import functools
import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from perceiver import saving
from perceiver.attention import Activation, Block
from perceiver.config import from_json, to_json
from perceiver.errors import ConfigError, InputError
from perceiver.hierarchical import Hierarchical, HierarchicalConfig, Signal
from perceiver.hierarchical_blocks import Grouping, Level, Regroup, Separate, shares
from perceiver.model import Compute, parameter_count
from perceiver.zoo import hip
from perceiver.zoo.tables import read, write
from tests.models import close, filled

TYPES = [HierarchicalConfig, Level, Signal]
INPUTS = (Signal("image", 9, 3), Signal("audio", 4, 2))
LABELS = (Signal("topic", 2, 5), Signal("age", 1, 4))
LEVELS = (
    hip.level(4, 3, 8, 1, 2, widening=2),
    Level(1, 12, 12, 2, latent=Block(heads=3, dropout=0.1, activation=Activation.SQUARED_RELU), train_latents=8),
    hip.level(4, 3, 6, 0, 2),
)
CONFIG = HierarchicalConfig(INPUTS, LEVELS, embedding=8, labels=LABELS, project_positions=True, regroup=Regroup.MIXED)


def batch(config=CONFIG, size=2, seed=0):
    rng = np.random.default_rng(seed)
    signals = (*config.inputs, *config.labels)
    return {s.name: rng.normal(size=(size, s.length, s.channels)).astype(np.float32) for s in signals}


@functools.cache
def model(config=CONFIG):
    return filled(lambda rngs: Hierarchical(config, rngs))


@nnx.jit
def run(module, inputs, key=None):
    hidden = module.encode(inputs, key=key)
    return module.decode(hidden, key=key), hidden, module.latents(hidden)


def test_a_config_survives_json_with_the_order_of_its_modalities():
    for config in (CONFIG, dataclasses.replace(CONFIG, inputs=INPUTS[::-1])):
        again = from_json(json.loads(json.dumps(to_json(config))), HierarchicalConfig, [*TYPES, Block])
        assert again == config
        assert hash(again) == hash(config)
    assert dataclasses.replace(CONFIG, inputs=INPUTS[::-1]) != CONFIG


@pytest.mark.slow
def test_a_model_comes_back_bit_for_bit(tmp_path):
    again = saving.load(model().save(tmp_path / "model"), types=TYPES)
    assert again.config == CONFIG
    for have, want in zip(jax.tree.leaves(run(again, batch())), jax.tree.leaves(run(model(), batch())), strict=True):
        np.testing.assert_array_equal(have, want)


@pytest.mark.slow
def test_a_model_reconstructs_what_goes_in_and_starts_at_zero():
    found = run(CONFIG.build(seed=1), batch())[0]
    assert {name: x.shape for name, x in found.items()} == {name: x.shape for name, x in batch().items()}
    assert all(x.dtype == jnp.float32 and not np.any(x) for x in found.values())


@pytest.mark.slow
def test_gradients_are_finite_and_reach_every_parameter():
    def loss(module, inputs, key):
        return sum((x**2).sum() for x in module(inputs, key=key).values())

    gradients = saving.flatten(nnx.jit(nnx.grad(loss))(model(), batch(), jax.random.key(0)))
    assert gradients.keys() == saving.flatten(nnx.state(model(), nnx.Param)).keys()
    for name, value in gradients.items():
        assert np.isfinite(value).all(), name
        # What all keys have in common changes no softmax.
        assert np.any(value) or name.endswith("key.bias"), name


def test_bfloat16_answers_in_float32_close_to_float32():
    half = nnx.merge(nnx.graphdef(dataclasses.replace(CONFIG, compute=Compute.BFLOAT16).abstract()), nnx.state(model()))
    found, hidden, _ = run(half, batch())
    assert all(level.dtype == jnp.bfloat16 for level in hidden.levels)
    for name, want in run(model(), batch())[0].items():
        assert found[name].dtype == jnp.float32
        close(found[name], want, atol=0.1)


# Groups


@pytest.mark.parametrize("lengths", [(30, 9, 4), (5,), (7, 7), (1, 2, 3, 4), (13, 1)])
def test_no_other_share_of_the_groups_has_a_smaller_largest_group(lengths):
    for groups in range(len(lengths), 9):
        ways = [w for w in itertools.product(range(1, groups + 1), repeat=len(lengths)) if sum(w) == groups]
        best = min(max(n / count for n, count in zip(lengths, way, strict=True)) for way in ways)
        found = shares(lengths, groups)
        assert sum(found) == groups
        assert max(n / count for n, count in zip(lengths, found, strict=True)) == best


@pytest.mark.parametrize("grouping", Grouping)
def test_grouping_keeps_every_vector_and_pads_with_zeros(grouping):
    groups = 6 if grouping is Grouping.SEPARATE else 1
    parts = {n: np.random.default_rng(0).uniform(1, 2, (2, n_, 3)) for n, n_ in (("a", 7), ("b", 12), ("c", 1))}
    layout = grouping.layout({name: part.shape[1] for name, part in parts.items()}, groups)
    grouped = layout.group(parts)
    assert grouped.shape[:2] == (2, groups)
    assert np.count_nonzero(grouped) == sum(part.size for part in parts.values())
    for name, part in layout.ungroup(grouped).items():
        np.testing.assert_array_equal(part, np.float32(parts[name]))


def test_padding_lies_in_each_group_and_at_the_end_of_a_modality():
    grouped = Separate({"a": 5, "b": 2}, 3).group({"a": jnp.arange(1.0, 6)[None, :, None], "b": jnp.ones((1, 2, 1))})
    np.testing.assert_array_equal(grouped[0, :, :, 0], [[1, 2, 3], [4, 5, 0], [1, 1, 0]])


def test_regrouping_joins_neighbours_or_mixes_all():
    x = jnp.arange(8.0).reshape(1, 4, 2, 1)
    np.testing.assert_array_equal(Regroup.NEIGHBOURS(x, 2)[0, :, :, 0], [[0, 1, 2, 3], [4, 5, 6, 7]])
    np.testing.assert_array_equal(Regroup.MIXED(x, 2)[0, :, :, 0], [[0, 2, 4, 6], [1, 3, 5, 7]])
    with pytest.raises(InputError, match="multiple of 3 vectors"):
        Regroup.MIXED(x, 3)


def test_groups_do_not_look_into_each_other_before_the_processor():
    changed = batch() | {"audio": batch(seed=1)["audio"]}
    first, second = (run(model(), inputs)[1].levels for inputs in (batch(), changed))
    alike = [
        bool(np.all(a == b)) for a, b in zip(np.swapaxes(first[0], 0, 1), np.swapaxes(second[0], 0, 1), strict=True)
    ]
    assert alike == [True, True, True, False]  # 9 and 4 elements share 4 groups as 3 and 1
    assert not np.allclose(first[1], second[1])


def test_labels_enter_at_the_processor():
    changed = batch() | {"topic": batch(seed=1)["topic"]}
    first, second = (run(model(), inputs)[1].levels for inputs in (batch(), changed))
    np.testing.assert_array_equal(first[0], second[0])
    assert not np.allclose(first[1], second[1])


def test_a_subset_of_the_inputs_is_laid_out_as_if_there_were_no_others():
    given = {name: batch()[name] for name in ("audio", "age")}
    small = dataclasses.replace(CONFIG, inputs=INPUTS[1:], labels=LABELS[1:])
    kept = {n: v for n, v in saving.weights(model()).items() if not {"image", "topic"} & set(n.split("."))}
    alone = saving.with_weights(small, {name: np.asarray(value) for name, value in kept.items()}, "subset")
    found, want = run(model(), given), run(alone, given)
    assert found[0].keys() == want[0].keys() == {"audio", "age"}
    for name, value in want[0].items():
        close(found[0][name], value)


# Training


def test_training_draws_latents_for_every_sample_and_evaluation_uses_all():
    level = Level(2, 5, 4, 0, train_latents=3)
    block = filled(lambda rngs: level.build(4, dtype=jnp.dtype("float32"), rngs=rngs))
    x = jnp.ones((8, 2, 6, 4))
    table = np.asarray(block.queries[...]).reshape(2, 5, 4)
    np.testing.assert_array_equal(block.start(8), np.broadcast_to(table, (8, 2, 5, 4)))
    drawn = np.asarray(block.start(8, key=jax.random.key(0)))
    chosen = (drawn[:, :, :, None] == table[None, :, None]).all(-1)  # [b, g, drawn, latents]
    assert (chosen.sum(3) == 1).all()
    assert chosen.sum(2).max() == 1
    assert len({tuple(sample) for sample in chosen.any(2).reshape(16, 5)}) > 3
    assert block(x, key=jax.random.key(0)).shape == (8, 2, 3, 4)


def test_training_depends_on_its_key_alone():
    first, again, other = (run(model(), batch(), jax.random.key(seed))[0]["image"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


# A level of its own


def test_what_a_mask_hides_does_not_matter():
    level = hip.level(2, 3, 8, 1, 2)
    block = filled(lambda rngs: level.build(4, 5, dtype=jnp.dtype("float32"), rngs=rngs))
    rng = np.random.default_rng(0)
    x, skip = rng.normal(size=(2, 2, 6, 4)), rng.normal(size=(2, 2, 3, 5))
    mask = np.broadcast_to(np.arange(6) < 4, (2, 2, 3, 6))
    call = nnx.jit(lambda m, *args: m(*args))
    np.testing.assert_array_equal(
        call(block, np.where(mask[:, :, 0, :, None], x, 9.0), skip, mask), call(block, x, skip, mask)
    )
    close(call(block, x, skip, mask), call(block, x[:, :, :4], skip, None))
    with pytest.raises(InputError, match="same groups"):
        block(x[:, :1], skip)
    with pytest.raises(InputError, match="skip"):
        block(x, skip[:, :, :2])


# Published sizes

SIGNALS = (Signal("image", 50176, 3), Signal("audio", 1920, 16))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "count"),
    # Of the reference's own parameter shapes: Haiku's init of each variant with these inputs, evaluated abstractly.
    [
        (hip.hip_mini, 20_335_123),
        (hip.hip_16, 100_850_451),
        (hip.hip_256, 96_398_419),
        (hip.hip_16x3, 234_865_811),
        (hip.io_mini, 7_154_451),
        (hip.io_c_50m, 57_169_427),
        (hip.io_c_150m, 177_851_539),
        (functools.partial(hip.hip_16, labels=[Signal("label", 4, 1000)]), 105_556_731),
    ],
    ids=["mini", "16", "256", "16x3", "io_mini", "io_c_50m", "io_c_150m", "16 with labels"],
)
def test_published_sizes_have_the_references_number_of_parameters(make, count):
    module = make(SIGNALS).abstract()
    found = parameter_count(module)
    print(f"{found:,} parameters")
    assert found == count == by_hand(module.config)


def by_hand(config):
    """The same number from the formulas of the layers."""

    def linear(a, b):
        return a * b + b

    def mlp(width, widening):
        return 2 * width + linear(width, widening * width) + linear(widening * width, width)

    def look(queries, keys, widening=1):
        norms = 2 * queries + 2 * keys
        return norms + linear(queries, keys) + 2 * linear(keys, keys) + linear(keys, queries) + mlp(queries, widening)

    def port(signal, width):
        return linear(signal.channels, width) + linear(width, signal.channels) + signal.length * width

    levels, middle, width = config.levels, len(config.levels) // 2, config.embedding
    total = sum(port(signal, width) for signal in config.inputs) + look(width, levels[-1].channels)
    for i, level in enumerate(levels):
        before, own = levels[i - 1].channels if i else width, level.channels
        total += level.groups * level.latents * own + look(own, before, level.cross.widening)
        total += level.depth * (2 * own + 4 * linear(own, own) + mlp(own, level.latent.widening))
        skip = levels[-1 - i].channels
        total += linear(skip, own) if i > middle and skip != own else 0
    if config.labels:
        seen = levels[middle - 1].channels
        total += sum(port(label, seen) for label in config.labels) + look(seen, levels[middle].channels)
    return total


@pytest.mark.parametrize("table", [hip.class_bottleneck_table, hip.hip_table])
def test_a_table_names_every_parameter_once_and_is_read_both_ways(table):
    config = CONFIG if table is hip.class_bottleneck_table else dataclasses.replace(CONFIG, labels=())
    ours = {name: np.asarray(value) for name, value in saving.weights(model(config)).items()}
    theirs = write(table(config, "hip"), ours)
    assert sum(value.size for value in theirs.values()) == sum(value.size for value in ours.values())
    assert all(key.startswith("hip/") for key in theirs)
    again = read(table(config, "hip"), theirs, {name: value.shape for name, value in ours.items()}, "hip")
    for name, value in ours.items():
        np.testing.assert_array_equal(again[name], value)


# What does not fit


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": ()}, "at least one input"),
        ({"labels": (Signal("image", 1, 1),)}, "different names"),
        ({"embedding": 0}, "embedding must be at least 1, got 0"),
        ({"levels": LEVELS[:2]}, "odd number, got 2"),
        ({"levels": ()}, "odd number, got 0"),
        ({"levels": (LEVELS[0],)}, r"levels\[0\].groups: the processor has 1 group, got 4"),
        ({"levels": (*LEVELS[:2], Level(2, 3, 8, 1))}, r"got \(4, 3\) and \(2, 3\)"),
        ({"levels": (LEVELS[0], dataclasses.replace(LEVELS[1], train_latents=3), LEVELS[2])}, "1 x 3 latents"),
        (
            {"levels": (dataclasses.replace(LEVELS[0], train_latents=2), *LEVELS[1:])},
            r"levels\[0\].train_latents: only the processor",
        ),
        ({"levels": (LEVELS[0], Level(1, 6, 12, 1), LEVELS[2])}, r"does not divide the 1 x 6 latents of levels\[1\]"),
        ({"inputs": tuple(Signal(n, 1, 1) for n in "abcde")}, "5 inputs need as many groups, got 4"),
        ({"grouping": Grouping.TOGETHER}, "TOGETHER needs 1 group, got 4"),
    ],
)
def test_a_config_that_cannot_work_says_why(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CONFIG, **changes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Signal("a.b", 1, 1), "has a dot"),
        (lambda: Signal("items", 1, 1), "reserved"),
        (lambda: Signal("a", 0, 1), "got length 0 and channels 1"),
        (lambda: Level(0, 1, 1, 1), "Level.groups must be at least 1, got 0"),
        (lambda: Level(1, 1, 1, -1), "Level.depth must be at least 0, got -1"),
        (lambda: Level(1, 4, 1, 1, train_latents=5), r"\[1, latents = 4\], got 5"),
        (lambda: shares([3, 4], 1), "2 modalities need as many groups, got 1"),
    ],
)
def test_a_part_that_cannot_work_says_why(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sound": np.zeros((2, 4, 2), np.float32)}, r"inputs\['sound'\]: no such modality"),
        (
            {"image": np.zeros((2, 8, 3), np.float32)},
            r"inputs\['image'\]: expected shape \(batch, 9, 3\), got \(2, 8, 3\)",
        ),
        ({"image": np.zeros((2, 9, 3), np.uint8)}, r"inputs\['image'\]: expected floating point"),
        ({"image": np.zeros((3, 9, 3), np.float32)}, "one batch size"),
        ({"image": None, "audio": None}, "at least one of image, audio, got topic, age"),
    ],
)
def test_an_input_that_does_not_fit_is_named(change, message):
    given = {name: value for name, value in (batch() | change).items() if value is not None}
    with pytest.raises(InputError, match=message):
        model().encode(given)


def test_lengths_need_not_fill_the_groups():
    for length, groups in itertools.product((1, 3, 5, 8), (1, 2, 4)):
        layout = Separate({"a": length}, groups)
        grouped = layout.group({"a": jnp.ones((1, length, 1))})
        assert grouped.shape == (1, groups, math.ceil(length / groups), 1)
        assert layout.ungroup(grouped)["a"].shape == (1, length, 1)
