import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest
from flax import nnx

import perceiver as p
from perceiver.ctc import Beam, align, greedy
from perceiver.errors import ConfigError, InputError
from perceiver.io import write_wav
from perceiver.pipeline import training_stream
from perceiver.spectrogram import Log, Spectrogram
from perceiver.training.evaluation import figures_of
from perceiver.training.experiment import Experiment
from perceiver.training.optimizers import adamw, warmup_cosine
from perceiver.training.trainer import Trainer
from perceiver.training.transcribing import ctc_objective, target_of, text_judge, written
from perceiver.transcription import joined, steps_of, transcribe, transcribe_all, words_of
from tests.models import noisy

RATE, SAMPLES = 2000, 2000
TONES = {"a": 250.0, "b": 450.0, "c": 800.0}
HEAD = p.CTC("abc")


def config(query=None, **outputs):
    sound = p.LogMel(
        SAMPLES,
        Spectrogram(64, 32, mels=8, sample_rate=RATE, log=Log.NATURAL, mel_floor=1e-2),
        sample_rate=RATE,
        patch=(2, None),
        position=p.Fourier(bands=4),
        loudness=0.2,
    )
    return p.PerceiverConfig(
        inputs={"audio": sound},
        encoder=p.Encoder(4, 16, 1, cross=p.Block(heads=2, qk_channels=16), latent=p.Block(heads=2)),
        outputs=outputs or {"text": p.Output(HEAD, query or p.FromTokens("audio", project=24), p.Block(widening=2))},
    )


def beeps(text, rng):
    """A tone for each letter, with silence between them, and the times at which they sound."""
    parts, times, now = [], [], 0
    for letter in text:
        gap, count = int(rng.integers(120, 300)), int(rng.integers(200, 320))
        tone = np.sin(2 * np.pi * TONES[letter] / RATE * np.arange(count)).astype(np.float32)
        parts += [np.zeros(gap, np.float32), tone * rng.uniform(0.2, 0.5)]
        times.append(((now + gap) / RATE, (now + gap + count) / RATE))
        now += gap + count
    return np.concatenate([*parts, np.zeros(150, np.float32)]).astype(np.float32), times


def said(rng, count):
    return "".join(rng.choice(list(TONES), count))


def sample(_, rng):
    text = said(rng, int(rng.integers(1, 4)))
    raw, mask = MODEL.inputs["audio"].load(beeps(text, rng)[0])
    steps = int(steps_of(MODEL).real(mask[None]).sum())
    target = target_of(HEAD.encode(text), steps, 8)
    return {"inputs": {"audio": raw}, "masks": {"audio": mask}, "targets": {"text": target}}


MODEL = config()


@pytest.fixture(scope="module")
def heard():
    """A model that has learned to name tones."""
    steps = 120
    experiment = Experiment(
        name="tones",
        model=MODEL,
        batches=training_stream(range(64), sample, seed=0, batch=8),
        objective=ctc_objective(),
        optimizer=adamw(warmup_cosine(1e-2, steps)),
        steps=steps,
        batch=8,
        validate=dict,
        best="wer",
        test=dict,
    )
    trainer = Trainer(experiment)
    state = trainer.start()
    for number in range(steps):
        state, metrics = trainer.step(state, experiment.batches[number])
    assert float(metrics["unalignable"]) == 0.0
    return trainer.model(state)


def test_a_trained_model_names_what_it_hears_and_says_when(heard):
    rng = np.random.default_rng(5)
    for text in ("a", "bc", "cca"):
        wave, times = beeps(text, rng)
        found = transcribe(heard, wave)
        assert found.text == text
        assert found.seconds == pytest.approx(len(wave) / RATE)
        (word,) = found.words
        assert abs(word.start - times[0][0]) < 0.15
        assert abs(word.end - times[-1][1]) < 0.15


def test_long_sounds_are_heard_in_windows_without_lost_or_doubled_words(heard):
    rng = np.random.default_rng(6)
    text = said(rng, 24)
    wave, times = beeps(text, rng)
    assert len(wave) > 4 * SAMPLES
    found = transcribe(heard, wave, overlap=0.4)
    assert found.text == text
    assert abs(found.words[0].start - times[0][0]) < 0.15
    assert abs(found.words[-1].end - times[-1][1]) < 0.15
    assert transcribe_all(heard, [wave[: 3 * SAMPLES], wave], overlap=0.4)[1] == found


def test_a_file_at_another_rate_says_the_same(heard, tmp_path):
    import soxr

    wave, _ = beeps("bac", np.random.default_rng(7))
    write_wav(tmp_path / "said.wav", soxr.resample(wave, RATE, 11025), 11025)
    found = transcribe(heard, tmp_path / "said.wav")
    assert found.text == "bac"
    assert found.seconds == pytest.approx(len(wave) / RATE, abs=0.01)


def test_a_beam_with_a_language_model_can_overrule_the_sound(heard):
    wave, _ = beeps("ab", np.random.default_rng(8))
    assert transcribe(heard, wave, Beam()).text == "ab"
    never_b = np.where(np.arange(4) == 2, -1e3, -1.0)
    found = transcribe(heard, wave, Beam(scorer=lambda texts: np.tile(never_b, (len(texts), 1)), weight=1.0))
    assert "b" not in found.text


def test_silence_says_nothing_and_clipping_little(heard):
    for wave in (np.zeros(3000, np.float32), np.zeros(1, np.float32)):
        assert transcribe(heard, wave).text == ""
    wave, _ = beeps("acb", np.random.default_rng(9))
    assert transcribe(heard, np.clip(20 * wave, -1, 1)).text == "acb"
    found = transcribe(heard, np.ones(1, np.float32))
    assert len(found.words) <= 1
    assert found.seconds == 1 / RATE


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros(0, np.float32), "expected at least one element"),
        (np.full(40, np.nan, np.float32), "expected finite samples"),
        (np.zeros((2, 40), np.float32), "expected shape"),
        (np.zeros(40, np.int16), "expected floating point"),
    ],
)
def test_what_is_no_sound_is_refused(source, message):
    with pytest.raises(InputError, match=message):
        transcribe(MODEL.build(0), source)


def test_files_without_sound_are_refused(tmp_path):
    (tmp_path / "empty.wav").write_bytes(b"")
    with pytest.raises(InputError, match=r"empty\.wav"):
        transcribe(MODEL.build(0), tmp_path / "empty.wav")


def test_quiet_ends_that_are_cut_off_do_not_move_the_words(heard):
    trimming = dataclasses.replace(MODEL.inputs["audio"], trim=40.0)
    wave, _ = beeps("ba", np.random.default_rng(3))
    later = np.concatenate([np.zeros(2000, np.float32), wave])
    first, second = (clip.start for clip in (trimming.windows(wave)[0], trimming.windows(later)[0]))
    assert second - first == 2000
    assert trimming.windows(wave)[0].raw[: len(wave) - first].any()


def test_windows_cover_a_sound_and_overlap_by_whole_steps():
    sound = MODEL.inputs["audio"]
    for count in (1, SAMPLES, SAMPLES + 1, 5321, 4 * SAMPLES):
        wave = np.arange(1, count + 1, dtype=np.float32)
        clips = dataclasses.replace(sound, loudness=None).windows(wave, overlap=512, every=64)
        starts = [clip.start for clip in clips]
        assert all(start % 64 == 0 for start in starts)
        assert all(b - a <= SAMPLES - 512 + 64 for a, b in itertools.pairwise(starts))
        told = np.zeros(count, bool)
        for clip in clips:
            real = clip.raw[clip.mask]
            np.testing.assert_array_equal(real, wave[clip.start : clip.start + len(real)])
            told[clip.start : clip.start + len(real)] = True
        assert told.all()


def frames(text, alphabet=" abc", sure=0.97):
    """Log-probabilities of a step for each letter of a text; "_" is the blank."""
    shares = np.full((len(text), len(alphabet) + 1), (1 - sure) / len(alphabet))
    shares[np.arange(len(text)), [alphabet.find(letter) + 1 for letter in text]] = sure
    return np.log(shares)


@pytest.mark.parametrize(
    ("before", "behind", "start"),
    [
        ("aa_b_ _cab_ ____", "cab_ ____a__b_cc", 7),
        ("aa_b_ _cab_____", "cab_ ____a_b_cc_", 7),  # only the second knows of the space in the pause
        ("aa_b_ _cab_ ___b", "ccab_ ____a__b_cc", 6),  # the first hears something at its end that is not there
    ],
)
def test_windows_are_joined_in_a_pause(before, behind, start):
    whole = joined([frames(before), frames(behind)], [0, start], [0, 1])
    assert len(whole) == start + len(behind)
    spaced = p.CTC(" abc")
    ids = greedy(whole)
    found = words_of(spaced, ids, align(whole, ids))
    assert [word for word, _, _ in found] == ["ab", "cab", "abc"]
    assert [(first, last) for _, first, last in found][:2] == [(0, 3), (7, 9)]


@pytest.mark.parametrize(
    ("query", "samples"), [(p.FromTokens("audio", project=8), 64), (p.Grid((50,), p.Fourier(bands=2)), 40)]
)
def test_steps_are_tokens_or_cells_of_time(query, samples):
    steps = steps_of(config(query))
    assert steps.samples == samples
    assert steps.seconds == samples / RATE
    mask = np.arange(SAMPLES) < 3 * samples + 1
    assert steps.real(mask[None]).sum() == 4


@pytest.mark.slow
def test_steps_may_be_patches_of_the_waveform():
    sound = p.Waveform(SAMPLES, RATE, patch=50, position=p.Fourier(bands=2))
    model = noisy(dataclasses.replace(MODEL, inputs={"audio": sound}))
    assert steps_of(model.config).seconds == 50 / RATE
    found = transcribe(model, np.random.default_rng(0).normal(size=700).astype(np.float32))
    assert found.seconds == 0.35
    assert all(0 <= word.start < word.end <= 0.35 for word in found.words)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (config(label=p.Classes(3)), "expected a model with an output CTC, got label: Classes"),
        (config(p.Slots(7)), "expected queries that are steps of time"),
        (config(p.Grid((30,), p.Fourier(bands=2))), "a Grid of one axis that divides its 2000 samples"),
    ],
)
def test_a_model_that_is_no_recogniser_is_refused(made, message):
    with pytest.raises(ConfigError, match=message):
        steps_of(made)


def test_a_text_that_is_longer_than_its_sound_is_named():
    with pytest.raises(InputError, match="a text of 3 letters needs at least 5 steps of time, the sound has 4"):
        target_of(HEAD.encode("aaa"), 4, 8)
    with pytest.raises(InputError, match="expected a text of at most 2 letters, got 3"):
        target_of(HEAD.encode("abc"), 9, 2)
    with pytest.raises(InputError, match=r"expected letters of 'abc', got 'xy'"):
        HEAD.encode("axby")


@functools.partial(jax.jit, static_argnums=0)
def _objective(graph, state, batch):
    return ctc_objective()(nnx.merge(graph, state), batch, None)


def test_a_text_that_does_not_fit_has_no_loss_and_is_counted():
    model, rng = MODEL.build(0), np.random.default_rng(0)
    one = sample(0, rng)
    other = {**one, "masks": {"audio": np.arange(SAMPLES) < 70}, "targets": {"text": np.array([2, 2, 0, 0], np.int32)}}
    one = {**one, "targets": {"text": np.array([2, 3, 0, 0], np.int32)}}

    def loss(*samples):
        batch = {group: {name: np.stack([s[group][name] for s in samples]) for name in one[group]} for group in one}
        return _objective(*nnx.split(model), batch)

    alone, metrics = loss(one, one)
    assert float(metrics["unalignable"]) == 0.0
    both, metrics = loss(one, other)
    assert float(metrics["unalignable"]) == 0.5
    assert float(both) == pytest.approx(float(alone), rel=1e-4)
    assert float(loss(other, other)[0]) == 0.0


def test_transcripts_are_judged_by_the_words_and_letters_they_miss():
    judged = written(["x", "y", "z"], ["one two three", "four", ""], ["one too three", "four", "five"])
    figures = figures_of(judged)
    assert figures["wer"] == pytest.approx(2 / 4)
    assert figures["cer"] == pytest.approx((1 + 0 + 4) / (13 + 4))
    assert figures["exact"] == pytest.approx(1 / 3)
    assert judged.lines[0] == {"item": "x", "text": "one two three", "transcript": "one too three", "word_edits": 1}


def test_a_judge_hears_every_item(heard):
    rng = np.random.default_rng(11)
    items = [(f"{n}", text, beeps(text, rng)[0]) for n, text in enumerate(["ab", "c", "bba"])]
    judge = text_judge(lambda item: item[0], lambda item: item[2], lambda item: item[1])
    figures = figures_of(judge(heard, items))
    assert figures["wer"] == 0.0
    assert figures["exact"] == 1.0
