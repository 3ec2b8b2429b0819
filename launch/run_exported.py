"""An exported policy without this package: needs jax, flatbuffers and safetensors only.

python launch/run_exported.py FOLDER observation.npz

FOLDER is what `perceiver export` wrote; its program.json says what the arrays are called and of which shapes. Those
in the .npz have no batch axis; "NAME.mask" may stand beside them, and what is missing there counts as absent.
"""

import json
import pathlib
import sys
import time

import jax
import numpy as np
from safetensors.numpy import load_file

folder = pathlib.Path(sys.argv[1])
about, given = json.loads((folder / "program.json").read_text()), np.load(sys.argv[2])
weights = jax.device_put(load_file(folder / about["weights"]))
program = jax.jit(jax.export.deserialize(bytearray((folder / "program.jax").read_bytes())).call)
inputs, masks = {}, {}
for name, raw in about["inputs"].items():
    there, shape = given.get(name, 0), raw["shape"][1:]
    inputs[name] = np.broadcast_to(there, shape).astype(raw["dtype"])[None]
    seen = given.get(f"{name}.mask", name in given)
    masks[name] = np.broadcast_to(seen, about["masks"][name]["shape"][1:])[None]
for _ in range(2):  # the first call compiles
    started = time.perf_counter()
    answers = {name: np.asarray(array)[0] for name, array in program(weights, inputs, masks).items()}
took = 1e3 * (time.perf_counter() - started)
print(json.dumps({"took_ms": took, "answers": {name: array.tolist() for name, array in answers.items()}}))
