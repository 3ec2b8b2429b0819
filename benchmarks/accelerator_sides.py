"""The processes of `accelerator`: one library, one case, one mode; a line of JSON behind an @ for each result."""

import argparse
import contextlib
import dataclasses
import fcntl
import gc
import json
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import counting
from benchmarks.accelerator import COMPILED, EAGER, FORWARD, JAX, PEAK, Task
from benchmarks.cases import Canonical
from benchmarks.models import CANONICAL
from perceiver.attention import Block
from perceiver.encoder import Encoder
from perceiver.model import Compute, PerceiverConfig
from perceiver.zoo import flow, language

SIDES = (4096, 8192, 16_384)
"""Of the square matrices that the peak is sought with."""

Call = Callable[[], Any]


def say(**record: Any) -> None:
    """One line to the parent."""
    print("@" + json.dumps(record), flush=True)


def config(case: Canonical, tiny: bool) -> PerceiverConfig:
    """Ours in bfloat16: the released size, or one that any machine runs."""
    if not tiny:
        return dataclasses.replace(CANONICAL[case](), compute=Compute.BFLOAT16)
    found = {Canonical.LANGUAGE: lambda: language.language(16), Canonical.FLOW: lambda: flow.flow(8, 12)}
    whole = found.get(case, CANONICAL[case])()
    inputs: dict[str, Any] = dict(whole.inputs)
    if "image" in inputs:
        inputs["image"] = dataclasses.replace(inputs["image"], shape=(16, 16, 3))
    encoder = Encoder(4, 16, depth=1, latent=Block(heads=2))
    return dataclasses.replace(whole, inputs=inputs, encoder=encoder, compute=Compute.BFLOAT16)


@contextlib.contextmanager
def alone(lock: pathlib.Path) -> Iterator[None]:
    """Nobody else times, or lets XLA tune itself by timing, meanwhile."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def measure(task: Task, side: str, call: Call, flops: int, note: str) -> float:
    """Time a call, say so, and return the seconds of one. flops: of one example."""
    each = timed(call, 0.02 if task.tiny else 1.5)
    say(side=side, batch=task.batch, seconds=each, rate=task.batch / each, flops=flops, note=note)
    return each


def _flops(task: Task, wanted: PerceiverConfig) -> int:
    """Of one example."""
    return counting.forward_flops(wanted) if task.mode == FORWARD else counting.step_flops(wanted)


def timed(call: Call, least: float) -> float:
    """Median seconds of a call, over at least three and `least` seconds, behind two that compile and warm up."""
    call()
    call()
    taken: list[float] = []
    until = time.perf_counter() + least
    while len(taken) < 3 or time.perf_counter() < until:
        since = time.perf_counter()
        call()
        taken.append(time.perf_counter() - since)
    return statistics.median(taken)


def peak(side: str, times: Callable[[int], float], tiny: bool) -> None:
    """times: rows of square matrices -> seconds of one product."""
    for size in (256,) if tiny else SIDES:
        each = times(size)
        say(side=side, batch=size, seconds=each, rate=2 * size**3 / each, flops=1)


def arrays(wanted: PerceiverConfig, batch: int) -> dict[str, np.ndarray]:
    """Random raw inputs of full length."""
    rng, found = np.random.default_rng(0), {}
    for name, adapter in wanted.inputs.items():
        example = adapter.example(batch)
        if np.issubdtype(example.dtype, np.floating):
            found[name] = rng.random(example.shape, np.float32)
        else:
            high = 256 if example.dtype == np.uint8 else 262
            found[name] = rng.integers(6, high, example.shape).astype(example.dtype)
    return found


# --- JAX --------------------------------------------------------------------------------------------------------


def jax_peak(tiny: bool) -> None:
    """Products of square matrices, ten in flight."""
    import jax
    import jax.numpy as jnp

    def times(side: int) -> float:
        a, b = (jax.random.normal(jax.random.key(i), (side, side), jnp.bfloat16) for i in range(2))
        product = jax.jit(jnp.matmul)
        return timed(lambda: jax.block_until_ready([product(a, b) for _ in range(10)]), 0.02 if tiny else 0.5) / 10

    peak(JAX, times, tiny)


def jax_case(task: Task, case: Canonical, lock: pathlib.Path) -> None:
    """Forward: one compiled call. Training: the step of `perceiver.training.loop`, parameters and AdamW in float32."""
    import jax

    wanted = config(case, task.tiny)
    if task.mode == FORWARD:
        call, note = _jax_forward(wanted, task.batch), "bfloat16"
    else:
        call, note = _jax_step(wanted, case, task.batch), "bfloat16, float32 weights"
    with alone(lock):
        if task.profile is None:
            measure(task, JAX, call, _flops(task, wanted), note)
            return
        call()
        with jax.profiler.trace(task.profile):
            for _ in range(3):
                call()
    say(said="three steps")


def _jax_forward(wanted: PerceiverConfig, batch: int) -> Call:
    import jax
    from flax import nnx

    given = jax.device_put(arrays(wanted, batch))
    graph, weights = nnx.split(wanted.build())
    answer = jax.jit(lambda weights, given: nnx.merge(graph, weights)(given))
    return lambda: jax.block_until_ready(answer(weights, given))


def _jax_step(wanted: PerceiverConfig, case: Canonical, batch: int) -> Call:
    import jax

    given = jax.device_put(arrays(wanted, batch))
    rng = np.random.default_rng(1)
    shape, count = ((batch, given["text"].shape[1]), 262) if case is Canonical.LANGUAGE else ((batch,), 1000)
    step = {"inputs": given, "targets": jax.device_put({"label": rng.integers(count, size=shape)})}
    trainer = _trainer(wanted, case)
    state = trainer.start()

    def call() -> None:
        nonlocal state
        state, _ = trainer.step(state, step)
        jax.block_until_ready(state)

    return call


def _trainer(wanted: PerceiverConfig, case: Canonical) -> Any:
    from benchmarks.peers.ours import experiment
    from perceiver.training.trainer import Trainer

    return Trainer(experiment(wanted, objective(case), 1))


def objective(case: Canonical) -> Callable[..., Any]:
    """What a model of this kind is trained on here: cross-entropy of classes or bytes, or squares of all answers."""
    import jax.numpy as jnp

    from perceiver.objectives import cross_entropy

    def loss_of(model: Any, batch: Any, key: Any) -> tuple[Any, dict]:
        answers = list(model(batch["inputs"], key=key).values())
        if case in (Canonical.FLOW, Canonical.KINETICS):
            return sum(jnp.square(answer).mean() for answer in answers), {}
        return cross_entropy(answers[0], batch["targets"]["label"]), {}

    return loss_of


# --- torch ------------------------------------------------------------------------------------------------------


def torch_peak(tiny: bool) -> None:
    """As jax_peak."""
    import torch

    device = _device()

    def times(side: int) -> float:
        a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))

        def call() -> None:
            for _ in range(10):
                torch.mm(a, b)
            _wait()

        return timed(call, 0.02 if tiny else 0.5) / 10

    peak(EAGER, times, tiny)


def torch_case(task: Task, case: Canonical, lock: pathlib.Path) -> None:
    """The model of transformers with scaled_dot_product_attention, eager and compiled.

    Under autocast or wholly in bfloat16, whichever is faster eagerly.
    """
    import torch

    use_fused_attention()
    wanted = config(case, task.tiny)
    flops = _flops(task, wanted)
    notes = {False: "autocast, float32 weights", True: "model.to(bfloat16)"}
    seconds: dict[bool, float] = {}
    for half, note in notes.items():
        call = _torch_caller(case, task.mode, task.tiny, False, half)(task.batch)
        with alone(lock):
            seconds[half] = measure(task, EAGER, call, flops, note)
        del call
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    faster = min(seconds, key=seconds.__getitem__)
    call = _torch_caller(case, task.mode, task.tiny, True, faster)(task.batch)
    call()  # compiles, on the processor
    with alone(lock):
        measure(task, COMPILED, call, flops, notes[faster])


def _torch_caller(case: Canonical, mode: str, tiny: bool, compiled: bool, half: bool) -> Callable[[int], Call]:
    """From a batch to one forward call or training step (AdamW, gradients clipped to a norm of 1)."""
    import torch
    import transformers

    from benchmarks.peers.hugging_face_releases import RELEASES

    name, fields = RELEASES[case]
    fields = fields | (_TINY[case] if tiny else {})
    torch.manual_seed(0)
    built = getattr(transformers, name)(transformers.PerceiverConfig(**fields, attention_probs_dropout_prob=0.0))
    model = built.to(_device(), torch.bfloat16 if half else torch.float32)
    model.train(mode != FORWARD)
    network = torch.compile(model) if compiled else model
    trained = list(model.parameters())
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.01, fused=True)
    autocast = torch.autocast(_device(), torch.bfloat16, enabled=not half)

    def caller(batch: int) -> Call:
        given, labels = _torch_inputs(case, tiny, batch, torch.bfloat16 if half else torch.float32)

        def forward() -> None:
            with torch.inference_mode(), autocast:
                network(inputs=given)
            _wait()

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            with autocast:
                logits = network(inputs=given).logits
                if case is Canonical.FLOW:
                    loss = logits.float().square().mean()
                else:
                    loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, -2), labels.flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            _wait()

        return forward if mode == FORWARD else step

    return caller


_SMALL = {
    "num_latents": 4,
    "d_latents": 16,
    "num_blocks": 1,
    "num_self_attends_per_block": 1,
    "num_self_attention_heads": 2,
}
_TINY: dict[Canonical, dict[str, Any]] = {
    Canonical.IMAGENET_FOURIER: _SMALL,
    Canonical.IMAGENET_LEARNED: _SMALL | {"image_size": 16},
    Canonical.LANGUAGE: _SMALL | {"qk_channels": 16, "v_channels": 16, "max_position_embeddings": 16},
    Canonical.FLOW: _SMALL | {"train_size": [8, 12]},
}


def _torch_inputs(case: Canonical, tiny: bool, batch: int, dtype: Any) -> tuple[Any, Any]:
    import torch

    raw = {name: torch.from_numpy(value).to(_device()) for name, value in arrays(config(case, tiny), batch).items()}
    if case is Canonical.LANGUAGE:
        return raw["text"].long(), torch.randint(0, 262, raw["text"].shape, device=_device())
    if case is Canonical.FLOW:
        _, _, height, width, _ = raw["frames"].shape
        return torch.rand(batch, 2, 27, height, width, device=_device(), dtype=dtype), None
    pixels = raw["image"].permute(0, 3, 1, 2).contiguous().to(dtype) / 255
    return pixels, torch.randint(0, 1000, (batch,), device=_device())


def use_fused_attention() -> None:
    """Let transformers' Perceiver attend through torch's fused kernels, which it does not by itself.

    Nothing is masked in these cases (its own mask is all zeros, and added all the same), so the mask is left out, which
    is to torch's advantage.
    """
    import torch
    from transformers.models.perceiver.modeling_perceiver import PerceiverSelfAttention

    def forward(self, hidden_states, attention_mask=None, inputs=None, inputs_mask=None, output_attentions=False):
        del attention_mask, inputs_mask, output_attentions
        queries = self.layernorm1(hidden_states)
        seen = queries if inputs is None else self.layernorm2(inputs)
        q = self.transpose_for_scores(self.query(queries), self.qk_channels_per_head)
        k = self.transpose_for_scores(self.key(seen), self.qk_channels_per_head)
        v = self.transpose_for_scores(self.value(seen), self.v_channels_per_head)
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return (out.transpose(1, 2).flatten(2),)

    attention: Any = PerceiverSelfAttention
    attention.forward = forward


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _wait() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    """Read the task from the command line, as `accelerator.run` writes it."""
    parser = argparse.ArgumentParser()
    for name, kind in (("library", str), ("mode", str), ("case", str), ("batch", int), ("lock", pathlib.Path)):
        parser.add_argument(name, type=kind)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--profile")
    given = parser.parse_args()
    case = None if given.mode == PEAK else Canonical(given.case)
    task = Task(given.library, given.mode, case, given.batch, given.tiny, given.profile)
    ours = task.library == JAX
    if not ours:
        try:
            import torch  # noqa: F401
            import transformers  # noqa: F401
        except ImportError as error:
            say(said=f"skipped: {error}")
            return
    if case is None:
        (jax_peak if ours else torch_peak)(task.tiny)
        return
    (jax_case if ours else torch_case)(task, case, given.lock)


if __name__ == "__main__":
    main()
