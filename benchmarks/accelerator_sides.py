"""The processes of `accelerator`: one side of one case, batches doubled; a line of JSON behind an @ for each result."""

import argparse
import dataclasses
import gc
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import counting
from benchmarks.accelerator import COMPILED, FORWARD, JAX, PEAK
from benchmarks.cases import Canonical
from benchmarks.models import CANONICAL
from perceiver.attention import Block
from perceiver.encoder import Encoder
from perceiver.model import Compute, PerceiverConfig
from perceiver.zoo import flow, language

GAIN = 1.02
"""A doubled batch that brings less than this is the last."""
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


def doubled(start: int, seconds: float, flops: int, prepare: Callable[[int], tuple[Call, str]], tiny: bool) -> None:
    """Measure batches from `start` on, each twice the last. prepare: batch -> a call that waits, and a note."""
    began, batch, best = time.perf_counter(), start, 0.0
    while True:
        since = time.perf_counter()
        try:
            call, note = prepare(batch)
            each = timed(call, 0.02 if tiny else 1.5)
        except Exception as error:  # each library has its own class for a full card
            text = f"{type(error).__name__}: {error}"
            if not any(word in text for word in ("RESOURCE_EXHAUSTED", "out of memory", "OutOfMemory")):
                raise
            say(said=f"batch {batch} does not fit the memory")
            return
        rate = batch / each
        say(batch=batch, seconds=each, rate=rate, flops=flops, note=note)
        if rate < GAIN * best or (tiny and batch > start):
            return
        if time.perf_counter() + 1.5 * (time.perf_counter() - since) > began + seconds:
            say(said=f"no time for batch {2 * batch}")
            return
        best, batch = max(best, rate), 2 * batch
        del call
        gc.collect()


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


def peak(times: Callable[[int], float], tiny: bool) -> None:
    """times: side of square matrices -> seconds of one product."""
    for side in (256,) if tiny else SIDES:
        each = times(side)
        say(batch=side, seconds=each, rate=2 * side**3 / each, flops=1)


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

    peak(times, tiny)


def jax_case(case: Canonical, mode: str, start: int, seconds: float, tiny: bool, profile: str | None) -> None:
    """Forward: one compiled call. Training: the step of `perceiver.training.loop`, parameters and AdamW in float32."""
    import jax
    from flax import nnx

    wanted = config(case, tiny)
    flops = counting.forward_flops(wanted) if mode == FORWARD else counting.step_flops(wanted)
    trainer = None if mode == FORWARD else _trainer(wanted, case)
    split: Any = nnx.split(wanted.build()) if mode == FORWARD else (None, None)
    graph, weights = split
    state = None if trainer is None else trainer.start()
    answer = jax.jit(lambda weights, given: nnx.merge(graph, weights)(given))

    def prepare(batch: int) -> tuple[Call, str]:
        given = jax.device_put(arrays(wanted, batch))
        if trainer is None:
            return lambda: jax.block_until_ready(answer(weights, given)), "bfloat16"
        rng = np.random.default_rng(1)
        shape, count = ((batch, given["text"].shape[1]), 262) if case is Canonical.LANGUAGE else ((batch,), 1000)
        step = {"inputs": given, "targets": jax.device_put({"label": rng.integers(count, size=shape)})}

        def call() -> None:
            nonlocal state
            state, _ = trainer.step(state, step)
            jax.block_until_ready(state)

        return call, "bfloat16, float32 weights"

    if profile is None:
        doubled(start, seconds, flops, prepare, tiny)
        return
    call, _ = prepare(start)
    call()
    with jax.profiler.trace(profile):
        for _ in range(3):
            call()
    say(said="three steps")


def _trainer(wanted: PerceiverConfig, case: Canonical) -> Any:
    import jax.numpy as jnp

    from benchmarks.peers.ours import experiment
    from perceiver.objectives import cross_entropy
    from perceiver.training.loop import Trainer

    def objective(model: Any, batch: Any, key: Any) -> tuple[Any, dict]:
        (answer,) = model(batch["inputs"], key=key).values()
        loss = jnp.square(answer).mean() if case is Canonical.FLOW else cross_entropy(answer, batch["targets"]["label"])
        return loss, {}

    return Trainer(experiment(wanted, objective, 1))


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

    peak(times, tiny)


def torch_case(case: Canonical, mode: str, start: int, seconds: float, tiny: bool, compiled: bool) -> None:
    """The model of transformers with scaled_dot_product_attention, under autocast or wholly bfloat16: the faster."""
    import torch

    use_fused_attention()
    wanted = config(case, tiny)
    flops = counting.forward_flops(wanted) if mode == FORWARD else counting.step_flops(wanted)
    calls = {half: _torch_caller(case, mode, tiny, compiled, half) for half in (False, True)}
    speed = {half: timed(calls[half](start), 0.02 if tiny else 0.5) for half in calls}
    faster = min(speed, key=speed.__getitem__)
    del calls[not faster]
    note = "model.to(bfloat16)" if faster else "autocast, float32 weights"

    def prepare(batch: int) -> tuple[Call, str]:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return calls[faster](batch), note

    doubled(start, seconds, flops, prepare, tiny)


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
    for name, kind in (("side", str), ("mode", str), ("case", str), ("start", int), ("seconds", float)):
        parser.add_argument(name, type=kind)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--profile")
    task = parser.parse_args()
    ours = task.side == JAX
    if not ours:
        try:
            import torch  # noqa: F401
            import transformers  # noqa: F401
        except ImportError as error:
            say(said=f"skipped: {error}")
            return
    if task.mode == PEAK:
        (jax_peak if ours else torch_peak)(task.tiny)
        return
    case = Canonical(task.case)
    if ours:
        jax_case(case, task.mode, task.start, task.seconds, task.tiny, task.profile)
    else:
        torch_case(case, task.mode, task.start, task.seconds, task.tiny, task.side == COMPILED)


if __name__ == "__main__":
    main()
