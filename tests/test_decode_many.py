"""One encoding, any number of questions: the autoencoder of clips at a tiny size."""

import jax
import numpy as np
import pytest
from flax import nnx

import perceiver as p
from perceiver import inference
from perceiver.model import Perceiver
from perceiver.zoo import kinetics
from tests.models import close, noisy

CHUNK = 64


def autoencoder(frames=2, chunk=CHUNK):
    config = kinetics.autoencoder(
        frames=(frames, 8, 12),
        samples=32,
        samples_per_patch=8,
        video=p.Fourier(2, (2.0, 2.0, 3.0)),
        audio=p.Fourier(3, (32.0,)),
        classes=p.Classes(3),
        label_width=5,
        encoder=p.Encoder(4, 16, 1, latent=p.Block(heads=2)),
        trunk=(p.Block(residual=False), 12),
    )
    outputs = {name: p.Output(o.head, o.query, chunk=chunk, trunk="joint") for name, o in config.outputs.items()}
    return p.PerceiverConfig(config.inputs, config.encoder, outputs, trunks=config.trunks, mask_rates=config.mask_rates)


@pytest.fixture(scope="module")
def clip():
    rng = np.random.default_rng(0)
    sound = rng.uniform(-1, 1, (1, 32)).astype(np.float32)
    return {"image": rng.integers(0, 256, (1, 2, 8, 12, 3), dtype=np.uint8), "audio": sound}


def test_a_clip_is_encoded_once_and_decoded_in_chunks_to_the_same(clip, monkeypatch):
    calls, encode = [], Perceiver.encode
    monkeypatch.setattr(Perceiver, "encode", lambda *args, **given: calls.append(1) or encode(*args, **given))
    model, whole = noisy(autoencoder()), noisy(autoencoder(chunk=None))
    expected = inference.ask(whole, clip)
    calls.clear()
    latents = inference.encode(model, clip)
    assert len(calls) == 1
    answers = inference.decode(model, latents)
    assert answers["image"].shape == (1, 2, 8, 12, 3)
    for name, values in expected.items():
        close(answers[name], values, 5e-6)  # chunks multiply in another order
    pieces = [
        inference.decode(model, latents, ["image"], {"image": np.arange(start, start + CHUNK)})["image"]
        for start in range(0, 192, CHUNK)
    ]
    close(np.concatenate(pieces, axis=1), expected["image"].reshape(1, 192, 3), 5e-6)
    assert len(calls) == 1


def test_many_questions_of_one_shape_compile_once(clip):
    model = noisy(autoencoder())
    latents = inference.encode(model, clip)
    before = inference._decode._cache_size()
    for start in range(5):
        inference.decode(model, latents, ["image"], {"image": np.arange(start, start + 7)})
    assert inference._decode._cache_size() == before + 1


@pytest.mark.slow
def test_memory_of_decoding_grows_with_the_answers_alone(clip):
    def used(frames):
        graph, state = nnx.split(noisy(autoencoder(frames)))
        latents = p.Latents(jax.ShapeDtypeStruct((1, 4, 16), np.float32), {})
        decode = jax.jit(lambda state, latents: nnx.merge(graph, state).decode(latents, ["image"]))
        analysis = decode.lower(state, latents).compile().memory_analysis()
        return analysis.temp_size_in_bytes, analysis.output_size_in_bytes

    (small, few), (large, many) = used(4), used(64)
    assert many - few == 60 * 8 * 12 * 3 * 4
    assert large - small <= 1.1 * (many - few)
