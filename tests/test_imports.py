"""What importing costs, and which way imports point."""

import ast
import json
import pathlib
import subprocess
import sys

import perceiver

ROOT = pathlib.Path(perceiver.__file__).parent

LAYERS = [
    {"errors", "typing", "layout"},
    {
        "config",
        "tokens",
        "positions",
        "products",
        "sequence",
        "contrast",
        "ctc",
        "tiles",
        "folded",
        "splash",
        "attend",
        "spectrogram",
        "filterbank",
        "surroundings",
        "patches",
        "convolutions",
        "descriptors",
        "io",
        "hub",
        "flow",
        "generation",
        "watermark",
        "robot",
    },
    {"attention", "quantised"},
    {"adapters", "encoder", "join", "resampler"},
    {"decoders"},
    {"model"},
    {"towers", "hierarchical", "hierarchical_blocks", "dual", "prompts", "causal", "captioner", "speller"},
    {"autoregressive_positions", "autoregressive_parts", "autoregressive", "recollection"},
    {"continuation"},
    {"narrator"},
    {"telling"},
    {"saving", "objectives", "pipeline", "buckets", "augment", "compiled"},
    {"foretelling", "masked_tokens"},
    {"smaller"},
    {"zoo"},
    {"pretrained"},
    {"inference", "diagnostics"},
    {"embedding", "fusion", "transcription"},
    {"dictation"},
    {"zeroshot"},
    {"answers", "inspecting", "training", "viz", "retrieval", "provenance"},
    {"control"},
    {"programs"},
    {"export"},
    {"console"},
    {
        "cli_deploy",
        "cli_draw",
        "cli_generate",
        "cli_import",
        "cli_models",
        "cli_provenance",
        "cli_search",
        "cli_transcribe",
    },
    {"cli_evaluate"},
    {"cli", "__main__", "__init__"},
]
"""A module may import from its own layer and from those above it in this list."""

UPWARDS = {("model", "saving"), ("zoo", "pretrained")}
"""Imports inside a function for convenience: `model.save(folder)`, `CLIPModel.from_pretrained(id)`."""


def imported(path):
    """The modules that a file names in its import statements, wherever they stand, but for type checking."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


FILES = {path.relative_to(ROOT).parts[0].removesuffix(".py"): [] for path in ROOT.rglob("*.py")}
for path in ROOT.rglob("*.py"):
    FILES[path.relative_to(ROOT).parts[0].removesuffix(".py")].append(path)


def test_every_module_has_a_layer():
    assert set(FILES) <= set().union(*LAYERS)


def test_imports_point_one_way():
    rank = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    wrong = [
        f"{path.relative_to(ROOT)} imports {target}"
        for name, paths in FILES.items()
        for path in paths
        for target in imported(path)
        if target.startswith("perceiver.")
        and rank[target.split(".")[1]] > rank[name]
        and (name, target.split(".")[1]) not in UPWARDS
    ]
    assert not wrong


def test_the_package_knows_neither_data_sets_nor_experiments():
    for paths in FILES.values():
        for path in paths:
            assert not {"data", "experiments", "tests"} & {name.split(".")[0] for name in imported(path)}, path


def loaded_by(statement):
    code = f"import sys, json; {statement}; print(json.dumps(sorted(set(sys.modules))))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    return {name.split(".")[0] for name in json.loads(found.stdout)}


def test_importing_the_package_loads_nothing_heavy():
    assert not {"jax", "jaxlib", "flax", "numpy", "tensorflow", "torch"} & loaded_by("import perceiver")


def test_reading_files_needs_no_jax():
    assert not {"jax", "flax", "tensorflow", "torch", "soundfile", "laspy"} & loaded_by("import perceiver.io")


def test_a_model_needs_neither_tensorflow_nor_torch_nor_the_extras():
    loaded = loaded_by("from perceiver import Perceiver, from_pretrained, Image, LogMel, Subwords, Points")
    assert "jax" in loaded
    assert (
        not {"tensorflow", "torch", "tokenizers", "soundfile", "soxr", "laspy", "mujoco", "gymnasium", "rerun"} & loaded
    )
