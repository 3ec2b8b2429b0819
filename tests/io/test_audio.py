import struct

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perceiver.errors import InputError
from perceiver.io import read_audio, write_wav

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def wav_bytes(data, *, channels=1, rate=8000, bits=16, tag=1, riff_size=None, data_size=None, after=b""):
    """A WAV file by hand, with the truth or lies in its size fields."""
    frame = channels * bits // 8
    fmt = struct.pack("<HHIIHH", tag, channels, rate, rate * frame, frame, bits)
    data_size = len(data) if data_size is None else data_size
    body = b"WAVEfmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", data_size) + data + after
    return b"RIFF" + struct.pack("<I", len(body) if riff_size is None else riff_size) + body


def written(path, data):
    path.write_bytes(data)
    return path


def sine(hertz, rate, seconds=1.0):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def peak(samples, rate):
    return np.argmax(np.abs(np.fft.rfft(samples * np.hanning(len(samples))))) * rate / len(samples)


def refused(path, match, **options):
    with pytest.raises(InputError, match=match) as caught:
        read_audio(path, **options)
    assert str(caught.value).startswith(str(path))


def finite_or_refused(path, **options):
    try:
        samples, _ = read_audio(path, **options)
    except InputError as error:
        message = str(error)
    else:
        assert np.isfinite(samples).all()
        return
    assert message.startswith(str(path))


def test_golden_wav(tmp_path):
    path = written(tmp_path / "a.wav", wav_bytes(struct.pack("<4h", 0, 16384, -32768, 32767)))
    samples, rate = read_audio(path)
    assert rate == 8000
    assert samples.dtype == np.float32
    assert samples.tolist() == [0, 0.5, -1, 32767 / 32768]


def test_stereo_is_averaged(tmp_path):
    path = written(tmp_path / "a.wav", wav_bytes(struct.pack("<4h", 16384, 0, -8192, 8192), channels=2))
    assert read_audio(path)[0].tolist() == [0.25, 0]


@pytest.mark.parametrize(("bits", "raw"), [(8, b"\xc0"), (24, b"\0\0\x40"), (32, b"\0\0\0\x40")])
def test_other_sample_sizes(tmp_path, bits, raw):
    assert read_audio(written(tmp_path / "a.wav", wav_bytes(raw * 4, bits=bits)))[0].tolist() == [0.5] * 4


def test_float_wav_is_not_clipped(tmp_path):
    data = struct.pack("<3f", 0.25, -2.0, 3.0)
    assert read_audio(written(tmp_path / "a.wav", wav_bytes(data, bits=32, tag=3)))[0].tolist() == [0.25, -2, 3]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(tmp_path, value):
    data = struct.pack("<4f", 0, 0, value, value)
    refused(written(tmp_path / "a.wav", wav_bytes(data, bits=32, tag=3)), "2 of 4 .* first at 2")
    pair = struct.pack("<4f", 0, 0, np.inf, -np.inf)
    refused(written(tmp_path / "a.wav", wav_bytes(pair, bits=32, tag=3, channels=2)), "1 of 2")
    wide = struct.pack("<2d", 0, 1e300)  # finite in the file, infinite as float32
    refused(written(tmp_path / "a.wav", wav_bytes(wide, bits=64, tag=3)), "1 of 2")


@pytest.mark.parametrize("cut", [1, 3, 4, 11, 12, 20, 30, 36, 43, 44, 45, 46, 100, 143])
def test_truncated_wav(tmp_path, cut):
    data = wav_bytes(struct.pack("<50h", *range(50)))
    assert len(data) == 144
    refused(written(tmp_path / "a.wav", data[:cut]), "expected")


def test_lying_wav_headers(tmp_path):
    samples = struct.pack("<50h", *range(50))
    for lie in ({"data_size": 102}, {"data_size": 2**32 - 1}, {"data_size": 2**31}, {"data_size": 99},
                {"riff_size": 2**32 - 1}, {"riff_size": 138},
                {"channels": 0}, {"rate": 0}, {"bits": 0}, {"bits": 13}, {"channels": 3}):  # fmt: skip
        refused(written(tmp_path / "a.wav", wav_bytes(samples, **lie)), "expected")
    # A cut made good in the data chunk's size but not in the file's.
    refused(written(tmp_path / "a.wav", wav_bytes(samples[:50], riff_size=136)), "truncated")
    # A size of 0 in the outer header, as left by a recorder that was switched off; the data is all there.
    assert len(read_audio(written(tmp_path / "a.wav", wav_bytes(samples, riff_size=0)))[0]) == 50


def test_chunks_after_the_data(tmp_path):
    tail = b"LIST" + struct.pack("<I", 4) + b"INFO"
    data = wav_bytes(b"\x00\x40" * 10, after=tail)
    assert read_audio(written(tmp_path / "a.wav", data))[0].tolist() == [0.5] * 10
    refused(written(tmp_path / "a.wav", data[:-2]), "truncated")
    # 8-bit data of odd length, with and without the padding byte
    for pad in (b"\0", b""):
        odd = wav_bytes(b"\xc0" * 9, bits=8, riff_size=36 + 10, after=pad)
        assert len(read_audio(written(tmp_path / "a.wav", odd))[0]) == 9


def test_too_long_is_refused(tmp_path):
    path = written(tmp_path / "a.wav", wav_bytes(b"\0\0" * 8001))
    refused(path, "at most 1 s", max_seconds=1)
    assert len(read_audio(path, max_seconds=1.1)[0]) == 8001
    claim = wav_bytes(b"\0\0" * 10, data_size=2**32 - 2)
    refused(written(path, claim), "truncated")


@pytest.mark.parametrize(("suffix", "rate"), [("flac", 16000), ("ogg", 16000), ("wav", 44100)])
def test_soundfile_formats(tmp_path, suffix, rate):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.stack([sine(440, rate), sine(440, rate)], 1), rate)
    samples, got = read_audio(path)
    assert (len(samples), got) == (rate, rate)
    assert np.abs(samples - sine(440, rate)).max() < (0.1 if suffix == "ogg" else 1e-4)


def test_opus(tmp_path):
    soundfile.write(tmp_path / "a.opus", sine(440, 48000), 48000, format="OGG", subtype="OPUS")
    samples, rate = read_audio(tmp_path / "a.opus", 16000)
    assert (len(samples), rate) == (16000, 16000)
    assert peak(samples, 16000) == pytest.approx(440, abs=1)


@pytest.mark.parametrize(("suffix", "subtype"), [("flac", None), ("ogg", "VORBIS"), ("ogg", "OPUS")])
def test_truncated_flac_and_ogg(tmp_path, suffix, subtype):
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 30_000)
    soundfile.write(path, noise, 16000, format=suffix.upper(), subtype=subtype)
    data = path.read_bytes()
    assert len(read_audio(path)[0]) == 30_000
    pages = [k for k in range(len(data)) if suffix == "ogg" and data[k : k + 4] == b"OggS"][1:]
    for cut in [*range(1, len(data), len(data) // 40), *pages, len(data) - 1]:
        refused(written(path, data[:cut]), "expected")


def test_flac_of_unknown_length(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, sine(440, 8000), 8000)
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # STREAMINFO: the 36 bits of the total of samples
    data[22:26] = bytes(4)
    refused(written(path, data), "leaves it open")


def test_resampling_keeps_the_frequency(tmp_path):
    path = tmp_path / "a.wav"
    write_wav(path, sine(1000, 44100), 44100)
    samples, rate = read_audio(path, 8000)
    assert (len(samples), rate, samples.dtype) == (8000, 8000, np.float32)
    assert peak(samples, rate) == pytest.approx(1000, abs=1)
    assert np.abs(samples[200:-200] - sine(1000, 8000)[200:-200]).max() < 1e-3
    # above the new Nyquist frequency: gone, not folded back
    write_wav(path, sine(6000, 44100), 44100)
    assert np.abs(read_audio(path, 8000)[0][200:-200]).max() < 1e-3


def test_resampling_refuses(tmp_path):
    path = written(tmp_path / "a.wav", wav_bytes(b"\0\0", rate=192_000))
    refused(path, "at least one sample at 1 Hz", sample_rate=1)
    refused(path, "sample_rate", sample_rate=0)


def test_what_is_no_audio(tmp_path):
    refused(tmp_path / "none.wav", "no such file")
    refused(tmp_path, "directory")
    refused(written(tmp_path / "a.wav", b""), "empty")
    refused(written(tmp_path / "a.wav", b"just some text"), "RIFF")
    refused(written(tmp_path / "a.wav", wav_bytes(b"")), "expected samples, got none")
    refused(written(tmp_path / "a.wav", b"RIFF\x04\0\0\0AVI "), "WAVE")
    refused(written(tmp_path / "a.wav", b"RIFF" + struct.pack("<I", 14) + b"WAVEdata\x02\0\0\0\0\0"), "fmt")


@FUZZ
@given(head=st.sampled_from([b"", b"RIFF", wav_bytes(b"")[:12], wav_bytes(b"")[:40], b"fLaC\0\0\0\x22", b"OggS\0\2"]),
       tail=st.binary(max_size=300))  # fmt: skip
def test_random_bytes(tmp_path, head, tail):
    path = written(tmp_path / "a.wav", head + tail)
    finite_or_refused(path, sample_rate=8000)


@FUZZ
@given(at=st.integers(0, 100_000), value=st.integers(0, 255), suffix=st.sampled_from(["wav", "flac", "ogg"]))
def test_changed_bytes(tmp_path, at, value, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, sine(440, 8000, 0.05), 8000)
    data = bytearray(path.read_bytes())
    data[at % len(data)] = value
    written(path, data)
    finite_or_refused(path, sample_rate=8000, max_seconds=10)


def test_write_wav_by_bytes(tmp_path):
    write_wav(tmp_path / "a.wav", np.array([0, 0.5, -1, 1], np.float32), 8000)
    assert (tmp_path / "a.wav").read_bytes() == wav_bytes(struct.pack("<4h", 0, 16384, -32768, 32767))
    write_wav(tmp_path / "a.wav", np.array([7, -9], np.int16), 16000)
    assert (tmp_path / "a.wav").read_bytes() == wav_bytes(struct.pack("<2h", 7, -9), rate=16000)


def test_write_wav_round_trip(tmp_path):
    samples = np.random.default_rng(0).uniform(-1, 1, 1000).astype(np.float32)
    write_wav(tmp_path / "a.wav", samples, 16000)
    assert np.abs(read_audio(tmp_path / "a.wav")[0] - samples).max() <= 1 / 32768


@pytest.mark.parametrize(
    ("samples", "rate"),
    [(np.zeros((2, 2)), 8000), (np.zeros(0), 8000), (np.zeros(2, np.int32), 8000), (np.full(2, np.nan), 8000),
     (np.full(2, 1.1), 8000), (np.zeros(2), 0), (np.zeros(2), 2**40)],
)  # fmt: skip
def test_write_wav_refuses(tmp_path, samples, rate):
    with pytest.raises(InputError, match="expected") as caught:
        write_wav(tmp_path / "a.wav", samples, rate)
    assert str(caught.value).startswith(str(tmp_path))


def test_write_wav_to_nowhere(tmp_path):
    with pytest.raises(InputError, match="writable"):
        write_wav(tmp_path / "none" / "a.wav", np.zeros(3), 8000)
