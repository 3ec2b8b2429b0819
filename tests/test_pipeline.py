import grain
import numpy as np
import pytest

from perceiver import InputError
from perceiver.pipeline import in_batches, iterate, merged, together, training_stream


def sample(item, rng):
    return {"inputs": {"x": np.float32(item)}, "targets": {"noise": rng.random()}}


def taken(stream, count, threads=2):
    iterator = iterate(stream, threads=threads)
    return [next(iterator) for _ in range(count)]


def same(left, right):
    return all(
        np.array_equal(a[group][name], b[group][name])
        for a, b in zip(left, right, strict=True)
        for group in a
        for name in a[group]
    )


def test_an_epoch_holds_every_item_once_and_the_next_in_another_order_with_other_randomness():
    batches = taken(training_stream(range(12), sample, seed=1, batch=4), 6)
    order = np.concatenate([batch["inputs"]["x"] for batch in batches])
    noise = np.concatenate([batch["targets"]["noise"] for batch in batches])
    assert sorted(order[:12]) == sorted(order[12:]) == list(range(12))
    assert list(order[:12]) != list(order[12:])
    assert len(set(noise)) == 24


def test_the_stream_is_the_same_on_any_number_of_threads_and_differs_by_seed():
    def stream(seed):
        return training_stream(range(20), sample, seed=seed, batch=4)

    reference = taken(stream(3), 10, threads=1)
    assert same(reference, taken(stream(3), 10, threads=4))
    assert not same(reference, taken(stream(4), 10))


def test_the_position_can_be_saved_anywhere():
    stream = together([training_stream(range(9), sample, seed=0, batch=2).map(lambda b: {"inputs": b["inputs"]})])
    grain.experimental.assert_equal_output_after_checkpoint(stream[:12].to_iter_dataset())


def test_streams_side_by_side_keep_their_own_names():
    def named(name):
        return lambda item, rng: {"inputs": {name: np.float32(item)}}

    streams = [training_stream(range(6), named(name), seed=i, batch=3) for i, name in enumerate(("a", "b"))]
    batch = taken(together(streams), 1)[0]
    assert batch["inputs"].keys() == {"a", "b"}
    assert batch["inputs"]["a"].shape == (3,)


def test_two_streams_with_one_name_are_refused():
    batch = {"inputs": {"a": np.zeros(2)}}
    with pytest.raises(InputError, match=r"inputs\['a'\]"):
        merged([batch, batch])


def test_an_empty_source_is_refused():
    with pytest.raises(InputError, match="empty"):
        training_stream([], sample, seed=0, batch=1)


def test_evaluation_batches_have_one_shape_and_count_the_real_samples():
    samples = [{"inputs": {"x": np.full(2, i)}} for i in range(5)]
    batches = list(in_batches(samples, 2))
    assert [count for _, count in batches] == [2, 2, 1]
    assert {batch["inputs"]["x"].shape for batch, _ in batches} == {(2, 2)}
    values = np.concatenate([batch["inputs"]["x"][:count, 0] for batch, count in batches])
    assert list(values) == [0, 1, 2, 3, 4]
