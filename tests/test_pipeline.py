import functools
import itertools
import logging
import threading

import grain
import numpy as np
import pytest

from perceiver import InputError
from perceiver.augment import (
    add_noise,
    change_pitch,
    change_speed,
    drop,
    jitter,
    mask_words,
    rand_augment,
    random_resized_crop,
    spec_augment,
    warp_frequency,
)
from perceiver.pipeline import Joined, Kept, Skipped, digest, in_batches, iterate, merged, together, training_stream


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
    stream = together([training_stream(range(9), sample, seed=0, batch=2)])
    grain.experimental.assert_equal_output_after_checkpoint(stream[:12].to_iter_dataset())


class Files:
    """Items by number, some of which cannot be read."""

    def __init__(self, count, bad):
        self.count, self.bad = count, frozenset(bad)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index in self.bad:
            raise InputError(f"{index}.wav: expected content, got an empty file")
        return index


def first_epoch(source, **options):
    batches = taken(training_stream(source, sample, seed=1, batch=4, **options), len(source) // 4)
    return [np.concatenate([batch[g][n] for batch in batches]) for g, n in (("inputs", "x"), ("targets", "noise"))]


def test_a_bad_item_is_left_out_named_and_counted_once(caplog):
    skipped = Skipped()
    with caplog.at_level(logging.WARNING):
        order, noise = first_epoch(Files(12, {3, 4, 11}), skipped=skipped, name="recording")
        taken(training_stream(Files(12, {3}), sample, seed=2, batch=4, skipped=skipped, name="recording"), 6)
    whole, own_noise = first_epoch(Files(12, ()))
    instead = {3: 5, 4: 5, 11: 0}  # the next good one, around the end
    assert [int(n) for n in order] == [instead.get(int(n), int(n)) for n in whole]
    assert np.array_equal(noise, own_noise)  # and the randomness of the bad one
    assert len(skipped) == 3
    assert list(skipped.problems) == ["recording 11", "recording 3", "recording 4"]
    assert skipped.problems["recording 3"] == "3.wav: expected content, got an empty file"
    assert len(caplog.messages) == 3
    assert "skipped recording 4: 4.wav: expected content, got an empty file" in caplog.messages


def test_randomness_spent_on_a_bad_item_is_given_back():
    def picky(item, rng):
        noise = rng.integers(1 << 32, dtype=np.uint32), rng.random()
        if item == 3:
            raise InputError("no")
        return {"inputs": {"x": np.float32(item)}, "targets": {"noise": noise[1]}}

    (good,) = taken(training_stream(range(12), lambda i, r: picky(0, r), seed=1, batch=12), 1)
    (with_bad,) = taken(training_stream(range(12), picky, seed=1, batch=12), 1)
    assert np.array_equal(good["targets"]["noise"], with_bad["targets"]["noise"])


def test_too_many_bad_items_end_the_run_with_a_list_of_them():
    skipped = Skipped(most=2)
    with pytest.raises(InputError, match=r"(?s)more than 2 samples are bad.*item \d: \d\.wav.*item \d:.*item \d:"):
        taken(training_stream(Files(9, {1, 4, 6}), sample, seed=0, batch=3, skipped=skipped), 30)
    with pytest.raises(InputError, match="more than 2"):  # and goes on to do so
        skipped.add("item 1", "again")


@pytest.mark.parametrize("most", [3, 100])
def test_a_source_with_nothing_good_in_it_ends_the_run(most):
    stream = training_stream(Files(5, range(5)), sample, seed=0, batch=2, skipped=Skipped(most))
    with pytest.raises(InputError, match=f"more than {most}" if most == 3 else "all 5 samples"):
        taken(stream, 1)


def test_other_errors_are_no_bad_samples():
    def breaks(item, rng):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        taken(training_stream(range(3), breaks, seed=0, batch=1), 1)


def test_bad_items_may_be_noted_from_many_threads():
    skipped, start = Skipped(most=1000), threading.Barrier(8)

    def note():
        start.wait()
        for number in range(200):
            skipped.add(f"item {number}", "bad")

    threads = [threading.Thread(target=note) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(skipped) == 200


def augmented(item, rng):
    """A sample of every modality from everything that draws at random."""
    own = np.random.default_rng(item)
    image = own.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    wave = own.normal(size=2000).astype(np.float32)
    wave = change_pitch(change_speed(add_noise(wave, rng, colour=1.0), rng), rng)
    mels = warp_frequency(spec_augment(own.normal(size=(30, 10)).astype(np.float32), rng), rng)
    points = jitter(drop(own.normal(size=(50, 4)), rng, 0.5), rng, 0.1, most=0.2)
    text = mask_words(own.integers(30, 120, 64), rng, mask=3, low=6, high=262)
    if item % 7 == 2 and rng.random() < 0.7:  # bad in some epochs, having drawn a good deal
        raise InputError("bad luck")
    raw = {
        "image": rand_augment(random_resized_crop(image, rng, (12, 12)), rng),
        "audio": np.resize(wave, 2000),
        "mels": mels,
        "points": np.resize(points, (50, 4)),
        "text": text.ids,
    }
    return {"inputs": raw, "masks": {"text": text.chosen}, "targets": {"text": text.targets}}


def real_stream():
    return training_stream(Files(23, {0, 1, 22}), augmented, seed=5, batch=4, skipped=Skipped())


@functools.cache
def reference():
    """The first batches of it, which go into a third epoch."""
    return taken(real_stream(), 14, threads=1)


@pytest.mark.parametrize("threads", [2, 8])
def test_batches_with_bad_items_and_augmentation_are_the_same_on_any_number_of_threads(threads):
    assert same(reference(), taken(real_stream(), 14, threads=threads))
    assert not same(reference()[:5], reference()[6:11])


def test_they_are_the_same_from_any_position_on():
    for position in range(13):
        later = iterate(real_stream(), position, threads=3)
        assert same(reference()[position : position + 2], [next(later), next(later)])
        later.close()


def test_batches_and_notes_of_bad_items_are_the_same_from_processes(caplog):
    def stream(skipped):
        return training_stream(Files(20, {3, 11}), sample, seed=0, batch=4, skipped=skipped, name="file")

    noted = [Skipped(), Skipped()]
    threads, processes = iterate(stream(noted[0]), 1), iterate(stream(noted[1]), 1, processes=2)
    assert same([next(threads) for _ in range(9)], [next(processes) for _ in range(9)])
    threads.close()
    processes.close()
    assert noted[1].problems == noted[0].problems
    assert sorted(noted[1].problems) == ["file 11", "file 3"]
    assert caplog.text.count("skipped file 11: ") == 2  # once for each

    too_many = iterate(stream(Skipped(most=1)), processes=2)
    with pytest.raises(InputError, match="more than 1 samples are bad"):
        list(itertools.islice(too_many, 9))
    too_many.close()


def test_several_processes_make_the_rows_of_each_batch_between_them():
    def stream():
        named = {
            name: (lambda item, rng, name=name: {"inputs": {name: np.float32([item, rng.random()])}}) for name in "ab"
        }
        return together([training_stream(range(11), named[name], seed=i, batch=6) for i, name in enumerate(named)])

    whole = taken(stream(), 5)
    for processes in (1, 2, 4):  # 4 does not divide 6
        shares = [taken(stream().shared(process, processes), 5) for process in range(processes)]
        for number in range(5):
            for name in "ab":
                rows = [share[number]["inputs"][name] for share in shares]
                np.testing.assert_array_equal(np.concatenate(rows), whole[number]["inputs"][name])


def test_the_items_of_a_batch_are_known_over_all_epochs():
    one = training_stream(range(10), sample, seed=3, batch=4)
    seen = [batch["inputs"]["x"].tolist() for batch in taken(one, 7)]
    assert [one.item_numbers(number) for number in range(7)] == [[numbers] for numbers in seen]
    assert together([one, one]).item_numbers(5) == [seen[5], seen[5]]
    assert one.shared(1, 2).item_numbers(5) == [seen[5][2:]]


def test_a_digest_tells_batches_apart():
    first, second = taken(training_stream(range(10), sample, seed=3, batch=4), 2)
    assert digest(first) == digest(training_stream(range(10), sample, seed=3, batch=4)[0])
    changed = {"inputs": {"x": first["inputs"]["x"].astype(np.float64)}, "targets": first["targets"]}
    renamed = {"inputs": {"y": first["inputs"]["x"]}, "targets": first["targets"]}
    assert len({digest(batch) for batch in (first, second, changed, renamed)}) == 4


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


class Noted:
    """`count` items, each its number after `change`, and the numbers that were read."""

    def __init__(self, count, change):
        self.count, self.change, self.read = count, change, []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.read.append(index)
        return self.change(index)


def test_joined_sources_are_read_one_after_the_other_and_only_when_asked():
    source = Noted(2, lambda index: 10 + index)
    joined = Joined([range(3), [], source])
    assert len(joined) == 5
    assert joined[4] == 11
    assert source.read == [1]
    assert list(joined) == [0, 1, 2, 10, 11]
    assert len(Joined([])) == 0
    with pytest.raises(IndexError):
        joined[5]


def test_kept_items_are_read_and_changed_once_but_bad_ones_again():
    def late(index):
        if index == 2 and source.read.count(2) == 1:
            raise InputError("not yet")
        return index

    source = Noted(3, late)
    kept = Kept(source, lambda item: 10 * item)
    assert (len(kept), source.read) == (3, [])
    assert [kept[1], kept[1], kept[0]] == [10, 10, 0]
    with pytest.raises(InputError, match="not yet"):
        kept[2]
    assert kept[2] == 20
    assert source.read == [1, 0, 2, 2]
