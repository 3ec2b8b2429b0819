"""Attention blocks: Attention, CrossAttend, SelfAttend and Stack, all pre-norm as in the Perceiver papers."""

import dataclasses
import enum
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from perceiver.attend import Backend, Problem, attend, attention_weights, choose_backend
from perceiver.errors import ConfigError
from perceiver.folded import attend_tokens
from perceiver.layout import by_sample
from perceiver.positions import rotate
from perceiver.products import product
from perceiver.sequence import cut
from perceiver.tiles import SAVED, differs_by_query
from perceiver.tokens import Tokens
from perceiver.typing import Array, Bool, Float, Int

EPSILON = 1e-5
"""Layer norm epsilon of every reference model."""

UNROLLED = 8
"""Layers up to which unrolling does not take long to compile."""


class Activation(enum.Enum):
    """The non-linearity of an MLP."""

    GELU_TANH = "tanh approximation of GELU (DeepMind)"
    GELU_ERF = "exact GELU (Hugging Face)"
    QUICK_GELU = "x sigmoid(1.702 x) (CLIP)"
    SILU = "x sigmoid(x), also called swish"
    RELU = "max(x, 0)"
    SQUARED_RELU = "max(x, 0)^2 (Perceiver AR)"

    def __call__(self, x: Array) -> Array:
        """Apply it elementwise."""
        return _ACTIVATIONS[self](x)


def _fused(primitive: Any, *shapes: Any, **options: Any) -> bool:
    """Whether this is the forward pass of cuDNN's attention, to be kept: its gradients need nothing else."""
    return primitive.name.startswith("dot_product_attention_fwd")


_PRODUCTS = jax.checkpoint_policies.save_from_both_policies(
    jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable, jax.checkpoint_policies.save_only_these_names(*SAVED)
    ),
    _fused,
)

_ACTIVATIONS = {
    Activation.GELU_TANH: lambda x: jax.nn.gelu(x, approximate=True),
    Activation.GELU_ERF: lambda x: jax.nn.gelu(x, approximate=False),
    Activation.QUICK_GELU: lambda x: x * jax.nn.sigmoid(1.702 * x),
    Activation.SILU: jax.nn.silu,
    Activation.RELU: jax.nn.relu,
    Activation.SQUARED_RELU: lambda x: jnp.square(jax.nn.relu(x)),
}


@dataclasses.dataclass(frozen=True)
class Block:
    """One attention and one MLP, both with residuals.

    heads: attention heads; they divide qk_channels and v_channels.
    qk_channels: total width of queries and keys; None takes the keys' own width in a cross-attention (the choice of
        the released models) and the block's width in a self-attention.
    v_channels: total width of the values; None takes qk_channels.
    widening: hidden width of the MLP over its input width. mlp_channels: that hidden width itself, where it is no
        multiple; None takes the multiple.
    residual: add the queries to what attention brings (cross-attention only).
    dropout: rate after attention and after the MLP; attention_dropout: rate on the attention weights.
    mean_when_blind: a query that may look at no key gets the mean of all values, as in Hugging Face's Perceiver,
        instead of zeros.
    epsilon: of the layer norms.
    """

    heads: int = 1
    qk_channels: int | None = None
    v_channels: int | None = None
    widening: int = 1
    residual: bool = True
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation: Activation = Activation.GELU_TANH
    mlp_channels: int | None = None
    mean_when_blind: bool = False
    epsilon: float = EPSILON

    def __post_init__(self) -> None:
        if self.heads < 1 or self.widening < 1 or (self.mlp_channels is not None and self.mlp_channels < 1):
            raise ConfigError(
                f"heads and widening (and mlp_channels) must be at least 1, got {self.heads} and {self.widening} "
                f"(and {self.mlp_channels})"
            )
        if self.epsilon <= 0.0:
            raise ConfigError(f"Block.epsilon must be above 0, got {self.epsilon}")
        for name in ("qk_channels", "v_channels"):
            width = getattr(self, name)
            if width is not None and (width < 1 or width % self.heads):
                raise ConfigError(f"Block.{name} is {width}, which {self.heads} heads do not divide")
        for name in ("dropout", "attention_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"Block.{name} must be in [0, 1), got {getattr(self, name)}")


def dropout(x: Array, rate: float, key: jax.Array | None) -> Array:
    """Zero a fraction `rate` of the elements and scale the rest; nothing happens without a key."""
    if key is None or rate == 0.0:
        return x
    return jnp.where(jax.random.bernoulli(key, 1.0 - rate, x.shape), x / (1.0 - rate), jnp.zeros_like(x))


def split_key(key: jax.Array | None, count: int) -> tuple[Any, ...] | jax.Array:
    """`count` keys out of one, or `count` times None: no key means no randomness, which means evaluation."""
    return (None,) * count if key is None else jax.random.split(key, count)


def layer_norm(channels: int, dtype: jnp.dtype, rngs: nnx.Rngs, epsilon: float = EPSILON) -> nnx.LayerNorm:
    """Layer norm with float32 statistics whatever the compute dtype; variance in two passes as in the references."""
    return nnx.LayerNorm(channels, epsilon=epsilon, dtype=dtype, use_fast_variance=False, rngs=rngs)


def linear(inputs: int, outputs: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.Linear:
    """A linear map with a bias."""
    return nnx.Linear(inputs, outputs, dtype=dtype, dot_general=product, rngs=rngs)


def mean_where_blind(
    q: Float[Array, "b q h c"], mask: Bool[Array, "#b #h #q k"]
) -> tuple[Float[Array, "b q h c"], Bool[Array, "#b #h #q k"]]:
    """Queries and a mask by which a query that may see nothing takes the mean of all values."""
    seen = mask.any(axis=-1, keepdims=True)
    # A zero query over open keys weighs them all alike, which is the mean.
    return jnp.where(jnp.swapaxes(seen, 1, 2), q, 0), mask | ~seen


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Memory:
    """Keys [b, k, h, d] and values [b, k, h, e] of one attention, or of a stack of them along a first axis."""

    keys: Float[Array, "*depth b k h d"]
    values: Float[Array, "*depth b k h e"]

    def written(self, new: "Memory", slot: Int[Array, ""] | int) -> "Memory":
        """With new ones from a slot on, which may be a traced number. Of one attention."""
        put = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=slot, axis=1)
        return Memory(put(self.keys, new.keys), put(self.values, new.values))


class Attention(nnx.Module):
    """Multi-head attention with independent query-key and value widths."""

    def __init__(
        self,
        q_channels: int,
        kv_channels: int,
        out_channels: int,
        config: Block,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        qk = kv_channels if config.qk_channels is None else config.qk_channels
        v = qk if config.v_channels is None else config.v_channels
        for name, width in (("query-key", qk), ("value", v)):
            if width % config.heads:
                raise ConfigError(f"{config.heads} heads do not divide the {name} width {width}")
        self.heads = config.heads
        self.dropout = config.attention_dropout
        self.mean_when_blind = config.mean_when_blind
        self.query = linear(q_channels, qk, dtype=dtype, rngs=rngs)
        self.key = linear(kv_channels, qk, dtype=dtype, rngs=rngs)
        self.value = linear(kv_channels, v, dtype=dtype, rngs=rngs)
        self.out = linear(v, out_channels, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x_q: Float[Array, "b q c"],
        x_kv: Float[Array, "b k d"],
        mask: Bool[Array, "#b #h #q k"] | None = None,
        *,
        angles: tuple[Array, Array] | None = None,
        key_norm: nnx.LayerNorm | None = None,
        key: jax.Array | None = None,
    ) -> Float[Array, "b q o"]:
        """Attend from x_q to x_kv.

        angles: rotary angles of the queries [b, q, n] and the keys [b, k, n].
        key_norm: normalises x_kv first, which lets the projections of keys and values be folded into the queries.
        """
        q = self._heads(self.query(x_q))
        foldable = key_norm is not None and angles is None
        backend = self._backend(q, x_kv, mask, foldable=foldable, dropped=key is not None)
        if self.mean_when_blind and mask is not None:
            q, mask = mean_where_blind(q, mask)
        if backend is Backend.FOLDED and key_norm is not None:
            attended = self._folded(q, x_kv, key_norm, mask, key)
        else:
            x_kv = cut(x_kv) if backend is Backend.PARTS else x_kv
            x_kv = x_kv if key_norm is None else key_norm(x_kv)
            k, v = self._heads(self.key(x_kv)), self._heads(self.value(x_kv))
            if angles is not None:
                q, k = rotate(q, angles[0]), rotate(k, angles[1])
            attended = attend(q, k, v, mask, dropout=self.dropout, key=key, backend=backend)
        return self.out(attended.reshape(*attended.shape[:2], -1))

    def remember(self, x_kv: Float[Array, "b k d"], angles: Array | None = None) -> Memory:
        """Keys, rotated, and values of normalised tokens, to look at more than once. angles: rotary, of the tokens."""
        keys, values = self._heads(self.key(x_kv)), self._heads(self.value(x_kv))
        return Memory(keys if angles is None else rotate(keys, angles), values)

    def recall(
        self,
        x_q: Float[Array, "b q c"],
        memory: Memory,
        mask: Bool[Array, "#b #h #q k"] | None = None,
        *,
        angles: Array | None = None,
    ) -> Float[Array, "b q o"]:
        """Attend from x_q to what was remembered: the same as a call, without dropout."""
        q = self._heads(self.query(x_q))
        if self.mean_when_blind and mask is not None:
            q, mask = mean_where_blind(q, mask)
        q = q if angles is None else rotate(q, angles)
        attended = attend(q, memory.keys, memory.values, mask)
        return self.out(attended.reshape(*attended.shape[:2], -1))

    def _backend(self, q: Array, x_kv: Array, mask: Array | None, foldable: bool, dropped: bool) -> Backend:
        sizes = (q.shape[0], self.heads, q.shape[1], x_kv.shape[1], q.shape[3], self.value.out_features // self.heads)
        channels = x_kv.shape[2] if foldable else None
        rate = self.dropout if dropped else 0.0
        return choose_backend(Problem(*sizes, q.dtype, rate, channels, differs_by_query(mask)))

    def _folded(self, q: Array, x_kv: Array, norm: nnx.LayerNorm, mask: Array | None, key: jax.Array | None) -> Array:
        """Queries to the tokens' space, weighted means of the tokens, and the values of those: see `folded`."""
        assert norm.scale is not None
        assert norm.bias is not None
        assert self.value.bias is not None
        scale, bias = norm.scale[...], norm.bias[...]
        by_head = (x_kv.shape[2], self.heads, -1)
        to_keys = self.key.kernel[...].astype(q.dtype).reshape(by_head)
        carried = jnp.einsum("bqhd,chd->bqhc", q, to_keys, preferred_element_type=jnp.float32)
        carried = (carried * (scale / math.sqrt(q.shape[-1]))).astype(q.dtype)
        means, sums = attend_tokens(carried, x_kv, mask, epsilon=norm.epsilon, dropout=self.dropout, key=key)
        means = (means * scale + sums[..., None] * bias).astype(q.dtype)
        values = jnp.einsum("bqhc,chd->bqhd", means, self.value.kernel[...].reshape(by_head).astype(q.dtype))
        offset = self.value.bias[...].reshape(self.heads, -1)
        return values + (sums[..., None] * offset).astype(values.dtype)

    def weights(self, x_q: Array, x_kv: Array, mask: Array | None = None) -> Float[Array, "b h q k"]:
        """The attention weights, for pictures."""
        return attention_weights(self._heads(self.query(x_q)), self._heads(self.key(x_kv)), mask)

    def _heads(self, x: Array) -> Array:
        return x.reshape(*x.shape[:2], self.heads, -1)


class Mlp(nnx.Module):
    """Norm, widen, activate, narrow."""

    def __init__(self, channels: int, config: Block, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.activation = config.activation
        hidden = config.widening * channels if config.mlp_channels is None else config.mlp_channels
        self.norm = layer_norm(channels, dtype, rngs, config.epsilon)
        self.widen = linear(channels, hidden, dtype=dtype, rngs=rngs)
        self.narrow = linear(hidden, channels, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        """Same shape; the residual is the caller's."""
        return self.narrow(self.activation(self.widen(self.norm(x))))


class CrossAttend(nnx.Module):
    """Queries look at keys of another width: norms on both sides, attention, residual, MLP."""

    def __init__(
        self,
        q_channels: int,
        kv_channels: int,
        config: Block,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
        out_channels=None,
    ):
        out = q_channels if out_channels is None else out_channels
        if config.residual and out != q_channels:
            raise ConfigError(f"a residual needs equal widths, got queries {q_channels} and output {out}")
        self.config = config
        self.query_norm = layer_norm(q_channels, dtype, rngs, config.epsilon)
        self.key_norm = layer_norm(kv_channels, dtype, rngs, config.epsilon)
        self.attention = Attention(q_channels, kv_channels, out, config, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(out, config, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        queries: Float[Array, "b q c"],
        tokens: Tokens,
        *,
        looking: Bool[Array, "b q"] | Bool[Array, "b q k"] | None = None,
        angles: tuple[Array, Array] | None = None,
        key: jax.Array | None = None,
    ) -> Float[Array, "b q o"]:
        """[b, q, c] and tokens [b, k, d] to [b, q, o]; masked tokens are not seen.

        looking: False for queries that look at nothing, or for the single tokens that one does not see; None lets all
        look. angles: rotary angles of the queries and the tokens.
        """
        drop_weights, drop_attended, drop_mlp = split_key(key, 3)
        mask = None if tokens.mask is None else tokens.mask[:, None, None, :]
        if looking is not None:
            keys = jnp.ones((1, 1, 1, tokens.values.shape[1]), bool) if mask is None else mask
            mask = (looking[..., None] if looking.ndim == 2 else looking)[:, None] & keys
        normed = self.query_norm(queries)
        x = self.attention(normed, tokens.values, mask, angles=angles, key_norm=self.key_norm, key=drop_weights)
        return self._finished(queries, dropout(x, self.config.dropout, drop_attended), drop_mlp)

    def remember(self, tokens: Float[Array, "b k d"], angles: Array | None = None) -> Memory:
        """What there is to look at, for `recall`. angles: rotary angles of the tokens."""
        return self.attention.remember(self.key_norm(tokens), angles)

    def recall(
        self,
        queries: Float[Array, "b q c"],
        memory: Memory,
        looking: Bool[Array, "#b #q k"],
        angles: Array | None = None,
    ) -> Float[Array, "b q o"]:
        """As a call, of what was remembered, without dropout. angles: rotary angles of the queries."""
        x = self.attention.recall(self.query_norm(queries), memory, looking[:, None], angles=angles)
        return self._finished(queries, x, None)

    def _finished(self, queries: Array, attended: Array, key: jax.Array | None) -> Array:
        """What follows attention."""
        x = by_sample(queries + attended if self.config.residual else attended)
        return by_sample(x + dropout(self.mlp(x), self.config.dropout, key))

    def weights(self, queries: Float[Array, "b q c"], tokens: Tokens) -> Float[Array, "b h q k"]:
        """Where each query looks."""
        mask = None if tokens.mask is None else tokens.mask[:, None, None, :]
        return self.attention.weights(self.query_norm(queries), self.key_norm(tokens.values), mask)


class SelfAttend(nnx.Module):
    """A pre-norm transformer layer."""

    def __init__(self, channels: int, config: Block, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.config = config
        self.norm = layer_norm(channels, dtype, rngs, config.epsilon)
        self.attention = Attention(channels, channels, channels, config, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(channels, config, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b n c"],
        mask: Bool[Array, "#b #h #n n"] | None = None,
        *,
        angles: Array | None = None,
        key: jax.Array | None = None,
    ) -> Float[Array, "b n c"]:
        """Same shape. angles: rotary angles [b, n, half] of every token."""
        drop_weights, drop_attended, drop_mlp = split_key(key, 3)
        normed = self.norm(x)
        both = None if angles is None else (angles, angles)
        attended = self.attention(normed, normed, mask, angles=both, key=drop_weights)
        x = by_sample(x + dropout(attended, self.config.dropout, drop_attended))
        return by_sample(x + dropout(self.mlp(x), self.config.dropout, drop_mlp))

    def extend(
        self,
        x: Float[Array, "b q c"],
        memory: Memory,
        slot: Int[Array, ""] | int,
        looking: Bool[Array, "#b #q k"],
        angles: Array | None = None,
    ) -> tuple[Float[Array, "b q c"], Memory]:
        """Write x into a memory from a slot on, and look at all that `looking` shows of it; without dropout.

        angles: rotary angles of x.
        """
        normed = self.norm(x)
        memory = memory.written(self.attention.remember(normed, angles), slot)
        x = by_sample(x + self.attention.recall(normed, memory, looking[:, None], angles=angles))
        return by_sample(x + self.mlp(x)), memory


class Stack(nnx.Module):
    """`depth` self-attention layers with stacked parameters, run as one scan: compiled once, whatever the depth."""

    def __init__(self, channels: int, depth: int, config: Block, *, remat: bool, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.depth = depth
        self.remat = remat
        self.layers = nnx.vmap(lambda r: SelfAttend(channels, config, dtype=dtype, rngs=r))(rngs.split(depth))

    def __call__(
        self,
        x: Float[Array, "b n c"],
        mask: Bool[Array, "#b #h #n n"] | None = None,
        *,
        angles: Array | None = None,
        depth: Int[Array, ""] | None = None,
        repeated: bool = False,
        key: jax.Array | None = None,
    ) -> Float[Array, "b n c"]:
        """Same shape, through every layer, or the first `depth` ones; that many may be a traced number.

        repeated: this runs within a scan of its own. On a GPU what is kept for the backward pass would then be copied
        twice, into one array after the other, so that few layers are unrolled there (a tenth of the step's time).

        With remat the backward pass recomputes each layer from its input. Without, only the results of the linear maps
        and of attention are kept: the rest is cheaper to recompute than to store and to fetch.
        """
        graph, parameters = nnx.split(self.layers)

        def layer(x, inputs):
            state, layer_key, number = inputs

            def run(x):
                return nnx.merge(graph, state)(x, mask, angles=angles, key=layer_key)

            # A condition, not a choice between two results: what is skipped costs no time.
            return run(x) if depth is None else jax.lax.cond(number < depth, run, lambda x: x, x), None

        keys = None if key is None else jax.random.split(key, self.depth)
        step = jax.checkpoint(layer, policy=None if self.remat else _PRODUCTS)
        numbers = None if depth is None else jnp.arange(self.depth)
        unroll = repeated and self.depth <= UNROLLED and jax.default_backend() == "gpu"
        return jax.lax.scan(step, x, (parameters, keys, numbers), unroll=unroll)[0]

    def extend(
        self,
        x: Float[Array, "b q c"],
        memory: Memory,
        slot: Int[Array, ""] | int,
        looking: Bool[Array, "#b #q k"],
        angles: Array | None = None,
    ) -> tuple[Float[Array, "b q c"], Memory]:
        """See SelfAttend.extend, through every layer; the memory has them along its first axis."""
        graph, parameters = nnx.split(self.layers)

        def layer(x, inputs):
            state, own = inputs
            return nnx.merge(graph, state).extend(x, own, slot, looking, angles)

        return jax.lax.scan(layer, x, (parameters, memory))
