import struct
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from perceiver.errors import InputError, MissingExtraError
from perceiver.io.images import frame_image
from perceiver.io.video import read_video, read_video_audio

SIZE = (32, 48)
COUNT, STEP = 12, 20
"""Frames of a test film, and by how much each is brighter than the last."""
FILMS = [
    ("a.mp4", "libx264", "aac"),
    ("a.mov", "libx264", "pcm_s16le"),
    ("a.webm", "libvpx", "libopus"),
    ("a.mkv", "ffv1", "flac"),
    ("a.avi", "mpeg4", "pcm_s16le"),
]
LOSSLESS = ("pcm_s16le", "flac")
ANIMATIONS = ["a.gif", "a.webp", "a.png"]
HEADS = [b"\0\0\0\x18ftypisom", b"\x1a\x45\xdf\xa3", b"RIFF\x20\0\0\0AVI ", b"GIF89a", b"RIFF\x20\0\0\0WEBP"]


def tone(rate, seconds=1.2):
    """Two channels of a rising tone, [2, n]."""
    t = np.arange(round(rate * seconds)) / rate
    wave = np.sin(2 * np.pi * (200 + 300 * t) * t)
    return np.stack([0.6 * wave, 0.2 * wave]).astype(np.float32)


def film(path, codec, sound=None, rate=10, delay=0.0):
    """A film of grey frames, `COUNT` of them, with a tone."""
    av = pytest.importorskip("av", reason="needs the extra video")
    with av.open(str(path), "w") as out:
        picture = out.add_stream(codec, rate=rate)
        picture.height, picture.width, picture.pix_fmt = *SIZE, "yuv420p"
        heard = None if sound is None else out.add_stream(sound, rate=48000, layout="stereo")
        for number in range(COUNT):
            grey = np.full((*SIZE, 3), STEP * number, np.uint8)
            out.mux(picture.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        out.mux(picture.encode())
        if heard is not None:
            frame = av.AudioFrame.from_ndarray(tone(48000), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = 48000, round(delay * 48000)
            context = heard.codec_context
            convert = av.AudioResampler(context.format, context.layout, context.rate, context.frame_size or None)
            for part in [*convert.resample(frame), *convert.resample(None), None]:
                out.mux(heard.encode(part))
    return path


def animation(path, durations=(50,) * COUNT):
    """The same as an animated picture, lossless."""
    frames = [Image.fromarray(np.full((*SIZE, 3), STEP * number, np.uint8)) for number in range(len(durations))]
    options = {"lossless": True} if path.suffix == ".webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=list(durations), **options)
    return path


def folder(path, count=COUNT, size=SIZE):
    path.mkdir(exist_ok=True)
    for number in range(count):
        Image.fromarray(np.full((*size, 3), STEP * number, np.uint8)).save(path / f"frame_{number}.png")
    return path


def numbers(frames):
    """Which frames of the film these are."""
    return np.rint(frames.mean(axis=(1, 2, 3)) / STEP).astype(int).tolist()


def refused(match, path, frames=99, **options):
    with pytest.raises(InputError, match=match) as caught:
        read_video(path, frames, **options)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(("name", "codec", "_sound"), FILMS)
def test_every_container(tmp_path, name, codec, _sound):
    path = film(tmp_path / name, codec)
    frames, rate = read_video(path, 99)
    assert (frames.shape, frames.dtype, rate) == ((COUNT, *SIZE, 3), np.uint8, 10.0)
    assert np.abs(frames.mean(axis=(1, 2, 3)) - STEP * np.arange(COUNT)).max() < 6
    assert numbers(read_video(str(path), 3)[0]) == [0, 1, 2]


@pytest.mark.parametrize("name", ANIMATIONS)
def test_every_animation(tmp_path, name):
    frames, rate = read_video(animation(tmp_path / name), 99)
    assert (frames.shape, frames.dtype, rate) == ((COUNT, *SIZE, 3), np.uint8, 20.0)
    assert (frames == (STEP * np.arange(COUNT))[:, None, None, None]).all()


def sources(tmp_path):
    """An animation and films, all of ten frames a second; the former needs no extra."""
    yield animation(tmp_path / "a.png", (100,) * COUNT)
    yield film(tmp_path / "a.mp4", "libx264")
    yield film(tmp_path / "a.webm", "libvpx")
    yield film(tmp_path / "a.avi", "mpeg4")


def test_a_start_and_a_rate(tmp_path):
    for path in sources(tmp_path):
        assert numbers(read_video(path, 99, start=0.5)[0]) == list(range(5, COUNT))
        assert numbers(read_video(path, 2, start=0.55)[0]) == [5, 6]
        assert numbers(read_video(path, 99, start=1.15)[0]) == [11]
        assert numbers(read_video(path, 99, rate=5)[0]) == [0, 2, 4, 6, 8, 10]
        assert numbers(read_video(path, 5, rate=20)[0]) == [0, 0, 1, 1, 2]
        assert numbers(read_video(path, 99, rate=3, start=0.2)[0]) == [2, 5, 8]
        assert read_video(path, 99, rate=3)[1] == 3
        assert read_video(path, 99, start=0.5)[1] == 10
        refused("frame at 1.3 s or later, got a video that ends before", path, start=1.3)


def test_times_that_a_container_rounds(tmp_path):
    path = film(tmp_path / "a.webm", "libvpx", rate=30)
    assert numbers(read_video(path, 99, rate=30)[0]) == list(range(COUNT))
    assert numbers(read_video(path, 99, rate=15)[0]) == list(range(0, COUNT, 2))


def test_frames_of_unequal_length(tmp_path):
    path = animation(tmp_path / "a.gif", (100, 300, 100, 500))
    assert numbers(read_video(path, 99, rate=10)[0]) == [0, 1, 1, 1, 2, 3, 3, 3, 3, 3]
    assert numbers(read_video(path, 99, start=0.2)[0]) == [1, 2, 3]
    assert read_video(path, 99)[1] == 4.0
    assert numbers(read_video(animation(tmp_path / "b.gif", (0, 0)), 9, rate=10)[0]) == [0, 1]


def test_a_transform_is_applied_to_each_frame(tmp_path):
    path = animation(tmp_path / "a.gif")
    frames, _ = read_video(path, 99, transform=lambda frame: frame_image(frame, 4, 5), max_pixels=COUNT * 20)
    assert frames.shape == (COUNT, 4, 5, 3)


def turned(path, matrix):
    """Write a rotation into the header of an MP4's track, as phones do (ISO/IEC 14496-12, box tkhd)."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    fixed = [value << (30 if place % 3 == 2 else 16) for place, value in enumerate(matrix)]
    data[at : at + 36] = struct.pack(">9i", *fixed)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("matrix", "bright"),
    [
        ((1, 0, 0, 0, 1, 0, 0, 0, 1), np.s_[:16, :24]),
        ((0, 1, 0, -1, 0, 0, 0, 0, 1), np.s_[:24, -16:]),  # a quarter clockwise
        ((-1, 0, 0, 0, -1, 0, 0, 0, 1), np.s_[-16:, -24:]),
        ((0, -1, 0, 1, 0, 0, 0, 0, 1), np.s_[-24:, :16]),
    ],
)
def test_films_are_turned_upright(tmp_path, matrix, bright):
    av = pytest.importorskip("av", reason="needs the extra video")
    corner = np.zeros((*SIZE, 3), np.uint8)
    corner[:16, :24] = 255
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(corner, format="rgb24")))
        out.mux(stream.encode())
    turned(tmp_path / "a.mp4", matrix)
    frame = read_video(tmp_path / "a.mp4", 1)[0][0]
    assert frame.shape[:2] == (SIZE if matrix[0] else SIZE[::-1])
    assert frame[bright].mean() > 230
    assert abs(frame.mean() - 255 / 4) < 10


def test_a_folder_in_the_order_of_its_numbers(tmp_path):
    path = folder(tmp_path / "film")
    (path / "notes.txt").write_text("no picture")
    frames, rate = read_video(path, 99)
    assert numbers(frames) == list(range(COUNT))
    assert rate is None
    assert numbers(read_video(path, 3)[0]) == [0, 1, 2]
    frames, rate = read_video(path, 4, rate=7)
    assert (numbers(frames), rate) == ([0, 1, 2, 3], 7)


def test_folders_that_do_not_fit(tmp_path):
    path = folder(tmp_path / "film")
    refused("start: expected 0 for a folder", path, start=1)
    Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(path / "frame_1.png")
    refused(r"frames of one size, got \(32, 48, 3\) and \(5, 6, 3\)", path)
    (path / "frame_0.png").write_bytes(b"text")
    refused(r"frame_0\.png: expected an image", path)
    refused("expected images .* in the folder, got none", folder(tmp_path / "empty", 0))


@pytest.mark.parametrize(("name", "codec", "sound"), FILMS)
def test_films_and_their_sound_cut_anywhere(tmp_path, name, codec, sound):
    path = film(tmp_path / name, codec, sound)
    data = path.read_bytes()
    for cut in [*range(1, len(data), len(data) // 15), len(data) - 4, len(data) - 1]:
        path.write_bytes(data[:cut])
        refused("expected", path)
        with pytest.raises(InputError, match="expected"):
            read_video_audio(path)


@pytest.mark.parametrize("name", ANIMATIONS)
def test_animations_cut_anywhere(tmp_path, name):
    path = animation(tmp_path / name)
    data = path.read_bytes()
    for cut in [*range(1, len(data), len(data) // 20), len(data) - 4, len(data) - 1]:
        path.write_bytes(data[:cut])
        refused("expected", path)


def test_too_large(tmp_path):
    path = animation(tmp_path / "a.gif")
    refused(r"at most 4000 pixels, got more than 2 of \(32, 48, 3\)", path, max_pixels=4000)
    assert len(read_video(path, 2, max_pixels=4000)[0]) == 2
    data = bytearray(path.read_bytes())
    data[6:10] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    refused("pixels", path)


def test_what_is_no_video(tmp_path):
    refused("no such file", tmp_path / "none.mp4")
    for content, match in [(b"", "empty"), (b"just some text", "expected MP4, MOV"), (b"\xff\xd8\xff\xe0", "JPEG|MP4")]:
        (tmp_path / "a.mp4").write_bytes(content)
        refused(match, tmp_path / "a.mp4")
    path = animation(tmp_path / "a.gif")
    refused("frames: expected at least 1, got 0", path, 0)
    refused("rate: expected frames per second above 0, got 0", path, rate=0)
    refused("start: expected seconds from 0 on, got -1", path, start=-1)


def test_sound_without_pictures_and_pictures_without_sound(tmp_path):
    av = pytest.importorskip("av", reason="needs the extra video")
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        stream = out.add_stream("aac", rate=48000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(tone(48000), format="fltp", layout="stereo")
        frame.sample_rate = 48000
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    refused("expected a video, got a file without one", tmp_path / "a.mp4")
    assert read_video_audio(tmp_path / "a.mp4")[1] == 48000
    for path in (film(tmp_path / "b.mp4", "libx264"), animation(tmp_path / "b.gif")):
        with pytest.raises(InputError, match="expected a sound track, got"):
            read_video_audio(path)


def test_a_missing_package_names_its_extra(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4", "libx264")
    monkeypatch.setitem(sys.modules, "av", None)
    for read in (lambda: read_video(path, 1), lambda: read_video_audio(path)):
        with pytest.raises(MissingExtraError, match=r"perceiver\[video\]"):
            read()
    assert len(read_video(animation(tmp_path / "a.gif"), 99)[0]) == COUNT


@pytest.mark.parametrize(("name", "codec", "sound"), FILMS)
def test_the_sound_of_every_container(tmp_path, name, codec, sound):
    path = film(tmp_path / name, codec, sound)
    samples, rate = read_video_audio(path)
    expected = tone(48000).mean(axis=0)
    assert (samples.dtype, samples.ndim, rate) == (np.float32, 1, 48000)
    assert 0 <= len(samples) - len(expected) < 2048
    check_alike(samples[: len(expected)], expected, sound)
    part, _ = read_video_audio(path, start=0.5, seconds=0.25)
    assert len(part) == 12000
    check_alike(part, expected[24000:36000], sound)


def check_alike(samples, expected, codec):
    """The same up to what the codec loses."""
    if codec in LOSSLESS:
        np.testing.assert_allclose(samples, expected, atol=1e-4)
    else:
        assert np.corrcoef(samples, expected)[0, 1] > 0.99


def test_sound_at_another_rate(tmp_path):
    pytest.importorskip("soxr", reason="needs the extra audio")
    samples, rate = read_video_audio(film(tmp_path / "a.avi", "mpeg4", "pcm_s16le"), 16000)
    assert rate == 16000
    np.testing.assert_allclose(samples[200:-200], tone(16000).mean(axis=0)[200:-200], atol=2e-3)


def test_sound_that_begins_late_has_silence_in_front(tmp_path):
    path = film(tmp_path / "a.mkv", "ffv1", "flac", delay=0.25)
    samples, _ = read_video_audio(path)
    assert not samples[:12000].any()
    np.testing.assert_allclose(samples[12000:][:9600], tone(48000).mean(axis=0)[:9600], atol=1e-4)
    assert not read_video_audio(path, seconds=0.1)[0].any()


def test_sound_that_does_not_fit(tmp_path):
    path = film(tmp_path / "a.avi", "mpeg4", "pcm_s16le")
    for options, match in [
        ({"max_seconds": 1}, "at most 1 s of sound"),
        ({"start": 5}, "samples from 5 s on, got 0 samples"),
        ({"sample_rate": 0}, "at least 1 Hz"),
        ({"seconds": 0}, "seconds from 0 on and above 0"),
        ({"start": -1}, "seconds from 0 on"),
    ]:
        with pytest.raises(InputError, match=match) as caught:
            read_video_audio(path, **options)
        assert str(caught.value).startswith(str(path))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.integers(0, 255), st.sampled_from(["a.mp4", "a.webm", "a.gif", "a.webp"]))
def test_changed_bytes(tmp_path, at, value, name):
    path = tmp_path / name
    if not path.exists():
        animation(path) if name in ANIMATIONS else film(path, "libx264" if name == "a.mp4" else "libvpx", "libopus")
    data = bytearray(path.read_bytes())
    data[at % len(data)] = value
    changed = tmp_path / f"changed_{name}"
    changed.write_bytes(data)
    read_or_refused(changed, lambda: read_video(changed, 20, max_pixels=10**6))
    read_or_refused(changed, lambda: read_video_audio(changed, max_seconds=10))


def read_or_refused(path, read):
    try:
        read()
    except InputError as error:
        message = str(error)
    else:
        return
    assert message.startswith(str(path))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(HEADS), st.binary(max_size=200))
def test_random_bytes(tmp_path, head, tail):
    pytest.importorskip("av", reason="needs the extra video")
    path = tmp_path / "a.mp4"
    path.write_bytes(head + tail)
    read_or_refused(path, lambda: read_video(path, 5, max_pixels=10**6))
