"""What every torch peer needs: threads, compilation, a training step. Imports torch alone; Python 3.10 on."""

import functools
import importlib.metadata
import typing

import numpy as np
import torch

from benchmarks import probes
from benchmarks.peers.contract import Built, Variant


def start(threads: int, package: str) -> dict:
    """Set the threads inside of an operation; versions of torch and of the peer's package.

    Runs something small, so that what torch sets up once is there.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    torch.ones(64, 64) @ torch.ones(64, 64)
    return {"torch": torch.__version__, package: importlib.metadata.version(package)}


def probe() -> dict:
    """What torch reaches on this machine; see `probes`."""
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).split(".")[1]
        found[name] = probes.matmul(torch.mm, lambda x, dtype=dtype: torch.from_numpy(x).to(dtype))
    out = torch.empty(probes.ELEMENTS)
    found["bandwidth"] = probes.triad(lambda a, b: torch.add(a, b, alpha=3.0, out=out), torch.from_numpy)
    return found


def tensors(tree: typing.Any) -> typing.Any:
    """Numpy arrays in a tree of dicts as tensors that share their memory."""
    if isinstance(tree, dict):
        return {name: tensors(value) for name, value in tree.items()}
    return torch.from_numpy(tree) if isinstance(tree, np.ndarray) else tree


def parameters(model: torch.nn.Module) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in model.parameters())


def shapes(answers: typing.Any) -> dict:
    """Shapes of a tensor or a dict of tensors."""
    answers = answers if isinstance(answers, dict) else {"": answers}
    return {name: list(value.shape) for name, value in answers.items()}


def forward(model: torch.nn.Module, call: typing.Callable, given: dict, variant: Variant) -> Built:
    """One call in inference mode. call: (model, tensors) -> answers."""
    model.eval()
    run_model = torch.compile(model) if variant is Variant.COMPILED else model

    def run() -> typing.Any:
        with torch.inference_mode():
            return call(run_model, tensors(given))

    return Built(run, shapes, parameters(model))


def training(model: torch.nn.Module, loss_of: typing.Callable, given: dict, variant: Variant) -> Built:
    """Loss, gradients, clipping to a global norm of 1, AdamW. loss_of: (model, tensors) -> loss.

    AdamW runs as one fused kernel where this torch has it for CPUs, and over lists of tensors before.
    """
    model.train()
    run_model = torch.compile(model) if variant is Variant.COMPILED else model
    trained = list(model.parameters())
    fused = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 4)
    adamw = functools.partial(torch.optim.AdamW, trained, lr=1e-4, weight_decay=0.01)
    optimizer = adamw(fused=True) if fused else adamw(foreach=True)

    def run() -> typing.Any:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(run_model, tensors(given))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        return {"loss": loss.detach()}

    return Built(run, shapes, parameters(model), notes=("AdamW(fused=True)" if fused else "AdamW(foreach=True)",))
