"""lucidrains' perceiver-pytorch: its PerceiverIO over given features, at our latents, widths, heads and depth.

Its MLPs are GEGLUs of four times the width and cannot be set otherwise, and queries, keys and values share one width.
A model of the same depth is therefore a larger one; the rows give both parameter counts.
"""

import perceiver_pytorch
import torch

from benchmarks import inputs
from benchmarks.cases import Canonical, Case, Forward, InputScaling, OutputScaling, Plain, Policy, Training
from benchmarks.peers import torch_common
from benchmarks.peers.contract import Built, NoSuchModelError, Variant

WIDER = "its MLPs are GEGLUs of 4 times the width, which cannot be set"
IMAGENET = Plain(
    tokens=inputs.SIZE**2,
    channels=261,
    latents=512,
    width=1024,
    depth=6,
    heads=8,
    queries=1,
    query_width=1024,
    answers=inputs.CLASSES,
)
probe = torch_common.probe


def load(threads: int) -> dict:
    """See `contract`."""
    return torch_common.start(threads, "perceiver-pytorch")


def build(case: Case, variant: Variant) -> Built:
    """See `contract`."""
    if isinstance(case, (InputScaling, OutputScaling, Policy)):
        return _run(_Asking(case.plain), inputs.features(case.batch, case.plain.tokens, case.plain.channels), variant)
    if isinstance(case, Forward) and case.model is Canonical.IMAGENET_FOURIER:
        features = inputs.features(case.batch, IMAGENET.tokens, IMAGENET.channels)
        return _run(_Shared(IMAGENET, 8), features, variant)
    if isinstance(case, Forward) and case.model is Canonical.LANGUAGE:
        return _language(case.batch, variant)
    if isinstance(case, Training):
        raise NoSuchModelError(f"{WIDER}: no comparable training step")
    raise NoSuchModelError("of the released models only ImageNet Fourier and the language model can be put together")


class _Asking(torch.nn.Module):
    """PerceiverIO takes its queries from the caller: here they are learned."""

    def __init__(self, plain: Plain):
        super().__init__()
        self.queries = torch.nn.Parameter(torch.randn(plain.queries, plain.query_width) * 0.02)
        self.model = perceiver_pytorch.PerceiverIO(
            depth=plain.depth,
            dim=plain.channels,
            queries_dim=plain.query_width,
            logits_dim=plain.answers,
            num_latents=plain.latents,
            latent_dim=plain.width,
            cross_heads=1,
            latent_heads=plain.heads,
            cross_dim_head=plain.channels,
            latent_dim_head=plain.width // plain.heads,
            decoder_ff=True,
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.model(features, queries=self.queries)


class _Shared(_Asking):
    """The same layers several times over, as in the ImageNet models."""

    def __init__(self, plain: Plain, repeats: int):
        super().__init__(plain)
        self.model.layers = torch.nn.ModuleList(list(self.model.layers) * repeats)
        self.model.attn_residuals = torch.nn.ModuleList(list(self.model.attn_residuals) * repeats)


def _run(model: torch.nn.Module, features, variant: Variant) -> Built:
    built = torch_common.forward(model, lambda model, given: model(given["features"]), {"features": features}, variant)
    built.notes = (WIDER, "gets the encoded features; computes no positions")
    return built


def _language(batch: int, variant: Variant) -> Built:
    model = perceiver_pytorch.PerceiverLM(
        dim=768,
        num_tokens=inputs.VOCABULARY,
        max_seq_len=inputs.LENGTH,
        depth=26,
        num_latents=256,
        latent_dim=1280,
        cross_heads=8,
        latent_heads=8,
        cross_dim_head=160,
        latent_dim_head=160,
        decoder_ff=True,
    )
    text = inputs.text(batch)
    given = {"ids": text.ids.astype("int64"), "mask": text.mask}
    built = torch_common.forward(model, lambda model, given: model(given["ids"], mask=given["mask"]), given, variant)
    built.notes = (WIDER, "queries, keys and values are 1280 wide, ours 256, 256 and 1280")
    return built
