"""Every door, with small files that it lets in, to be changed at random."""

import dataclasses
import functools
import gzip
import io
import json
import pickle
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image as Picture

from data.idx import read_idx
from perceiver import Block, Classes, Encoder, Fourier, Image, PerceiverConfig, from_pretrained
from perceiver.config import from_json, merge, network_json, preprocessing_json
from perceiver.errors import ConfigError, InputError
from perceiver.flow import read_flo
from perceiver.hub import read_safetensors
from perceiver.io import read_audio, read_image, read_points, read_video, read_video_audio
from perceiver.io.pickles import read_pickle
from perceiver.model import ModelConfig
from perceiver.saving import CONFIG, HOST, WEIGHTS, known_types, parse, write_folder

Files = dict[str, bytes]


@dataclasses.dataclass(frozen=True)
class Target:
    """One door.

    suffix: of the file that it takes. enter: the call; gets the file's path. seeds: files that it lets in.
    documented: the exceptions that may come out.
    """

    suffix: str
    enter: Callable[[Path], object]
    seeds: Callable[[], Files]
    documented: tuple[type[Exception], ...] = (InputError,)


def _sounds(kind: str) -> Callable[[], Files]:
    def make() -> Files:
        import soundfile

        found = {}
        for channels, count in ((1, 40), (2, 300)):
            wave = np.random.default_rng(channels).uniform(-0.5, 0.5, (count, channels))
            file = io.BytesIO()
            soundfile.write(file, wave, 8000, format=kind)
            found[f"{channels}"] = file.getvalue()
        return found

    return make


def _pictures(kind: str) -> Callable[[], Files]:
    def make() -> Files:
        found = {}
        for mode, shape in (("L", (5, 7)), ("RGB", (9, 4, 3))):
            pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
            file = io.BytesIO()
            Picture.fromarray(pixels, mode).save(file, kind)
            found[mode] = file.getvalue()
        return found

    return make


def _ply() -> Files:
    head = "ply\nformat {} 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    rows = struct.pack("<6f", 1, 2, 3, 4, 5, 6)
    swapped = struct.pack(">6f", 1, 2, 3, 4, 5, 6)
    return {
        "ascii": head.format("ascii").encode() + b"1 2 3\n4 5 6\n",
        "little": head.format("binary_little_endian").encode() + rows,
        "big": head.format("binary_big_endian").encode() + swapped,
    }


def _pcd() -> Files:
    head = (
        "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 2\nHEIGHT 1\n"
        "VIEWPOINT 0 0 0 1 0 0 0\nPOINTS 2\nDATA {}\n"
    )
    columns = struct.pack("<6f", 1, 4, 2, 5, 3, 6)
    packed = bytes([len(columns) - 1]) + columns  # one literal run of LZF
    sizes = struct.pack("<II", len(packed), len(columns))
    return {
        "ascii": head.format("ascii").encode() + b"1 2 3\n4 5 6\n",
        "binary": head.format("binary").encode() + struct.pack("<6f", 1, 2, 3, 4, 5, 6),
        "compressed": head.format("binary_compressed").encode() + sizes + packed,
    }


def _las(compress: bool) -> Callable[[], Files]:
    def make() -> Files:
        import laspy

        found = {}
        for form in (0, 3, 6):
            cloud = laspy.LasData(laspy.LasHeader(point_format=form, version="1.4"))
            cloud.x, cloud.y, cloud.z = np.random.default_rng(form).uniform(0, 9, (3, 5))
            file = io.BytesIO()
            cloud.write(file, do_compress=compress)
            found[str(form)] = file.getvalue()
        return found

    return make


def _npz() -> Files:
    found = {}
    for name, save in (("plain", np.savez), ("deflated", np.savez_compressed)):
        file = io.BytesIO()
        save(file, xyz=np.arange(12.0).reshape(4, 3), intensity=np.arange(4, dtype=np.uint8))
        found[name] = file.getvalue()
    return found


def _pickles() -> Files:
    tree = {"params": {"linear": {"w": np.arange(6.0, dtype=np.float32).reshape(2, 3), "b": np.zeros(3)}}, "step": 7}
    return {str(protocol): pickle.dumps(tree, protocol) for protocol in (2, 4, 5)}


def _film(form: str) -> Callable[[], Files]:
    def make() -> Files:
        import av

        file = io.BytesIO()
        with av.open(file, "w", format=form) as film:
            picture, sound = film.add_stream("mpeg4", rate=10), film.add_stream("pcm_s16le", rate=8000, layout="mono")
            picture.width, picture.height, picture.pix_fmt = 16, 16, "yuv420p"
            rng = np.random.default_rng(0)
            for _ in range(3):
                frame = av.VideoFrame.from_ndarray(rng.integers(0, 256, (16, 16, 3), np.uint8), "rgb24")
                film.mux(picture.encode(frame))
            film.mux(picture.encode())
            wave = av.AudioFrame.from_ndarray(rng.integers(-999, 999, (1, 400)).astype(np.int16), "s16", "mono")
            wave.sample_rate = 8000
            film.mux(sound.encode(wave))
            film.mux(sound.encode())
        return {form: file.getvalue()}

    return make


def _animations() -> Files:
    rng = np.random.default_rng(0)
    frames = [Picture.fromarray(rng.integers(0, 256, (6, 5, 3), np.uint8)) for _ in range(3)]
    found = {}
    for kind in ("GIF", "WEBP", "PNG"):
        file = io.BytesIO()
        frames[0].save(file, kind, save_all=True, append_images=frames[1:], duration=100)
        found[kind] = file.getvalue()
    return found


def _idx() -> Files:
    return {"two": gzip.compress(struct.pack(">IIII", 0x0803, 2, 3, 2) + bytes(range(12)))}


def _flo() -> Files:
    return {"small": b"PIEH" + struct.pack("<2i", 2, 3) + np.arange(12, dtype="<f4").tobytes()}


# --- models ----------------------------------------------------------------------------------------------------------


def _config() -> PerceiverConfig:
    return PerceiverConfig(
        inputs={"image": Image((2, 2, 1), position=Fourier(1))},
        encoder=Encoder(2, 4, 1, latent=Block(heads=1)),
        outputs={"label": Classes(2)},
    )


def _configs() -> Files:
    config = _config()
    return {"whole": json.dumps([network_json(config), preprocessing_json(config)]).encode()}


def _read_config(path: Path) -> object:
    trees = parse(path.read_bytes(), path)
    if not isinstance(trees, list) or len(trees) != 2:
        raise InputError(f"{path}: expected two objects")
    return from_json(merge(*trees), ModelConfig, known_types(), where=str(path))


def _safetensors() -> Files:
    from safetensors.numpy import save

    return {"two": save({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(0, np.int32)})}


def _weights() -> Files:
    from safetensors.numpy import save

    from perceiver.saving import weights

    return {"whole": save({name: np.asarray(value) for name, value in weights(_config().build(0)).items()})}


def _read_weights(path: Path) -> object:
    """A model folder whose weights are these bytes, and whose manifest says so."""
    config = _config()
    files = {
        CONFIG: json.dumps(network_json(config)).encode(),
        HOST: json.dumps(preprocessing_json(config)).encode(),
        WEIGHTS: path.read_bytes(),
    }
    return from_pretrained(write_folder(path.with_suffix(".model"), files))


HUB = Path(__file__).parents[1] / "goldens" / "hf_clip"


def _read_hub(path: Path) -> object:
    """A folder of the Hugging Face Hub whose config, if it is JSON, or else whose weights are these bytes."""
    folder = path.with_suffix(".hub")
    folder.mkdir(exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        changed = path.suffix == Path(name).suffix
        (folder / name).write_bytes((path if changed else HUB / name).read_bytes())
    return from_pretrained(folder)


def _manifests() -> Files:
    return {"one": b'{"format": 1, "files": {"a": {"sha256": "00", "bytes": 1}}}'}


def _read_manifest(path: Path) -> object:
    folder = path.with_suffix(".folder")
    folder.mkdir(exist_ok=True)
    (folder / "MANIFEST.json").write_bytes(path.read_bytes())
    return from_pretrained(folder)


def _observations() -> Files:
    from perceiver.control import wire

    state = {
        "observation.state": np.arange(3, dtype=np.float32),
        "task": "go",
        "reset": True,
        "numbers": [1, 2.5, None],
    }
    return {
        "state": wire.encode(state),
        "picture": wire.encode({"image": np.zeros((2, 2, 3), np.uint8), "n": np.int32(3)}),
    }


def _read_observations(path: Path) -> object:
    from perceiver.control import wire

    return wire.decode(path.read_bytes())


@functools.cache
def _episodes() -> Files:
    """The files of a LeRobotDataset v3 folder of two short episodes, by their places in it."""
    from perceiver.control.lerobot import Feature, Writer

    with tempfile.TemporaryDirectory() as work:
        features = {"observation.state": Feature("float32", (2,)), "action": Feature("float32", (2,))}
        with Writer(Path(work) / "set", 10.0, features) as writer:
            for count in (3, 2):
                rows = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
                writer.add({"observation.state": rows, "action": rows}, "go")
        files = [path for path in sorted((Path(work) / "set").rglob("*")) if path.is_file()]
        return {str(path.relative_to(Path(work) / "set")): path.read_bytes() for path in files}


def _of_episodes(part: str) -> Target:
    """A file of that folder; the others are as they were."""

    def name() -> str:
        return next(place for place in _episodes() if part in place)

    def read(path: Path) -> object:
        from perceiver.control.lerobot import Dataset

        folder = path.with_suffix(".lerobot")
        for place, content in _episodes().items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).write_bytes(path.read_bytes() if place == name() else content)
        return Dataset(folder)[:]

    suffix = ".json" if part.endswith(".json") else ".parquet"
    return Target(suffix, read, lambda: {"one": _episodes()[name()]}, (InputError, ConfigError))


TARGETS: dict[str, Target] = {
    "wav": Target(".wav", read_audio, _sounds("WAV")),
    "flac": Target(".flac", read_audio, _sounds("FLAC")),
    "ogg": Target(".ogg", read_audio, _sounds("OGG")),
    "png": Target(".png", read_image, _pictures("PNG")),
    "jpeg": Target(".jpg", read_image, _pictures("JPEG")),
    "webp": Target(".webp", read_image, _pictures("WEBP")),
    "ply": Target(".ply", read_points, _ply),
    "pcd": Target(".pcd", read_points, _pcd),
    "las": Target(".las", read_points, _las(False)),
    "laz": Target(".laz", read_points, _las(True)),
    "npz": Target(".npz", read_points, _npz),
    "kitti": Target(".bin", read_points, lambda: {"two": struct.pack("<8f", *range(8))}),
    "nuscenes": Target(".pcd.bin", read_points, lambda: {"two": struct.pack("<10f", *range(10))}),
    "mp4": Target(".mov", lambda path: read_video(path, 4), _film("mov")),
    "mkv": Target(".mkv", lambda path: read_video(path, 4), _film("matroska")),
    "film-sound": Target(".mkv", read_video_audio, _film("matroska")),
    "animation": Target(".gif", lambda path: read_video(path, 4), _animations),
    "flo": Target(".flo", read_flo, _flo),
    "idx": Target(".gz", lambda path: read_idx(path, (3, 2)), _idx),
    "pickle": Target(".pkl", read_pickle, _pickles),
    "config": Target(".json", _read_config, _configs, (InputError, ConfigError)),
    "safetensors": Target(".safetensors", read_safetensors, _safetensors),
    "weights": Target(".safetensors", _read_weights, _weights, (InputError, ConfigError)),
    "hub-config": Target(
        ".json", _read_hub, lambda: {"clip": (HUB / "config.json").read_bytes()}, (InputError, ConfigError)
    ),
    "hub-weights": Target(
        ".safetensors",
        _read_hub,
        lambda: {"clip": (HUB / "model.safetensors").read_bytes()},
        (InputError, ConfigError),
    ),
    "observations": Target(".msgpack", _read_observations, _observations),
    "lerobot-info": _of_episodes("info.json"),
    "lerobot-statistics": _of_episodes("stats.json"),
    "lerobot-episodes": _of_episodes("meta/episodes"),
    "lerobot-tasks": _of_episodes("tasks"),
    "lerobot-data": _of_episodes("data/"),
    "manifest": Target(".json", _read_manifest, _manifests, (InputError, ConfigError)),
}


def changed(seeds: list[bytes], rng: np.random.Generator) -> bytes:
    """One of some files with a few random changes: bits, bytes, numbers, pieces moved, left out, or of another file."""
    content = bytearray(seeds[rng.integers(len(seeds))])
    for _ in range(1 + int(rng.integers(4))):
        at = int(rng.integers(len(content) + 1))
        length = int(rng.integers(1, 9))
        kind = int(rng.integers(7))
        if kind == 0 and at < len(content):
            content[at] ^= 1 << int(rng.integers(8))
        elif kind == 1 and at < len(content):
            content[at] = int(rng.integers(256))
        elif kind == 2:
            number = (0, 1, -1, 2**31 - 1, -(2**31), 2**16)[int(rng.integers(6))]
            content[at : at + 4] = struct.pack("<i" if rng.random() < 0.5 else ">i", number)
        elif kind == 3:
            del content[at : at + length]
        elif kind == 4:
            content[at:at] = rng.bytes(length)
        elif kind == 5:
            content = content[:at]
        else:
            other = seeds[rng.integers(len(seeds))]
            start = int(rng.integers(len(other) + 1))
            content[at : at + length] = other[start : start + 4 * length]
    return bytes(content)


def corpus(target: Target, count: int, seed: int) -> Iterator[bytes]:
    """The same so many changed files each time, behind the files themselves."""
    seeds, rng = list(target.seeds().values()), np.random.default_rng(seed)
    yield from seeds
    for _ in range(count):
        yield changed(seeds, rng)
