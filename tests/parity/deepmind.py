"""Cases dm_*: DeepMind's Perceiver IO in Haiku. A case's constructor arguments become our config here."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import perceiver as p
from perceiver.adapters.frames import FramePair
from perceiver.adapters.video import Video
from perceiver.attend import attend
from perceiver.convolutions import Upsample
from perceiver.patches import from_patches, neighbourhoods, to_patches, windows
from perceiver.saving import weights
from perceiver.zoo import flow, haiku, kinetics, language, tables
from perceiver.zoo.tables import haiku_linear, row
from tests.parity import probes
from tests.parity.comparison import Comparison


def cases(folder):
    """Names of all cases in a folder."""
    return sorted(path.stem for path in folder.glob("dm_*.json"))


def compare(folder, name):
    """Every array of a case beside ours."""
    case = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    with np.load(folder / f"{name}.npz") as stored:
        arrays = dict(stored)
    with jax.default_matmul_precision("highest"):
        if case.get("spec") is None:
            yield from functions(arrays)
            return
        if case["spec"]["forward"] == "component":
            train = bool(case["spec"].get("component_call", {}).get("is_training"))
            compared = list(component(case["spec"]["component"], arrays, train))
        else:
            compared = list(network(case, arrays))
    wanted = {key for key in arrays if key.startswith(("outputs/", "inter/", "new_state/"))}
    left_out = wanted - {one.what for one in compared}
    assert not left_out, f"{name}: nothing of ours beside {sorted(left_out)}"
    yield from compared


# --- from constructor arguments to a config -----------------------------------------------------------------------


DEFAULTS = {
    "ImagePreprocessor": {
        "prep_type": "conv",
        "spatial_downsample": 4,
        "temporal_downsample": 1,
        "position_encoding_type": "fourier",
        "num_channels": 64,
        "conv_after_patching": False,
        "conv2d_use_batchnorm": True,
        "concat_or_add_pos": "concat",
    },
    "AudioPreprocessor": {"samples_per_patch": 96, "position_encoding_type": "fourier", "concat_or_add_pos": "concat"},
    "MultimodalPreprocessor": {"mask_probs": None, "min_padding_size": 2},
    "PerceiverEncoder": {
        "num_self_attends_per_block": 6,
        "num_blocks": 8,
        "z_index_dim": 512,
        "num_z_channels": 1024,
        "qk_channels": None,
        "v_channels": None,
        "num_cross_attend_heads": 1,
        "num_self_attend_heads": 8,
        "cross_attend_widening_factor": 1,
        "self_attend_widening_factor": 1,
        "dropout_prob": 0.0,
        "cross_attention_shape_for_attn": "kv",
        "use_query_residual": True,
    },
    "FlowDecoder": {"rescale_factor": 100.0},
}
"""Of the reference's constructors, where a case does not say."""

BASIC = {
    "position_encoding_type": "trainable",
    "qk_channels": None,
    "v_channels": None,
    "num_heads": 1,
    "use_query_residual": False,
    "concat_preprocessed_input": False,
}
"""Of BasicDecoder, which the other decoders pass their arguments on to."""


def arguments(entry):
    """All arguments of a constructor, defaults included."""
    known = DEFAULTS.get(entry["class"].split(".")[-1], {})
    return known | entry.get("defaults_not_passed", {}) | entry["kwargs"]


def tuple_or_none(values):
    return None if values is None else tuple(float(value) for value in values)


def position(given):
    """A position encoding."""
    if given["position_encoding_type"] == "trainable":
        kind = given["trainable_position_encoding_kwargs"]
        found = p.Learned(kind["num_channels"], kind.get("init_scale", 0.02))
    else:
        kind = given["fourier_position_encoding_kwargs"]
        resolution = tuple_or_none(kind.get("max_resolution"))
        found = p.Fourier(kind["num_bands"], resolution, kind.get("concat_pos", True), kind.get("sine_only", False))
    if given.get("project_pos_dim", -1) > 0:
        found = p.Projected(found, given["project_pos_dim"])
    extra = given.get("n_extra_pos_mlp", 0)
    return p.Refined(found, extra) if extra else found


def image(given, shape):
    """An ImagePreprocessor, for inputs of that shape without the batch axis."""
    step, kind = given["spatial_downsample"], given["prep_type"]
    common = {"position": position(given), "add_position": given["concat_or_add_pos"] == "add"}
    projected = given["num_channels"] if given["conv_after_patching"] else None
    if len(shape) == 4:
        assert kind == "patches", f"a clip as {kind}"
        return Video(tuple(shape), (given["temporal_downsample"], step, step), projected, **common)
    if kind == "conv":
        layers = round(math.log(step, 4))
        return p.Image(
            tuple(shape), stem=p.ConvStem(given["num_channels"], layers, given["conv2d_use_batchnorm"]), **common
        )
    if kind == "conv1x1":
        return p.Image(tuple(shape), subsample=step, project=given["num_channels"], **common)
    if kind == "pixels":
        return p.Image(tuple(shape), subsample=step, **common)
    return p.Image(tuple(shape), patch=step, project=projected, **common)


def audio(given, shape):
    """An AudioPreprocessor."""
    added = given["concat_or_add_pos"] == "add"
    patch = given["samples_per_patch"]
    return p.Waveform(shape[0], 48_000, patch, position=position(given), add_position=added)


NAMES = {"ImagePreprocessor": "image", "AudioPreprocessor": "audio", "OneHotPreprocessor": "label"}


def adapter(entry, shape):
    """Any preprocessor of one modality."""
    kind, given = entry["class"].split(".")[-1], arguments(entry)
    if kind == "OneHotPreprocessor":
        return p.Label(shape[0])
    return {"ImagePreprocessor": image, "AudioPreprocessor": audio}[kind](given, shape)


def preprocessing(entry, source, name):
    """Rows of an ImagePreprocessor or AudioPreprocessor as the input `name`."""
    rows = haiku.preprocessor(source, f"{name}_preprocessor", name)
    if source.project is None or arguments(entry)["prep_type"] != "patches":
        return rows
    linear = haiku_linear(f"{name}_preprocessor/patches_linear", f"adapters.{name}.embed.project")
    ours = {entry.ours for entry in linear}  # of patches of one pixel, which a config cannot tell from convolutions
    return [entry for entry in rows if entry.ours not in ours] + linear


def encoder(entry):
    """A PerceiverEncoder."""
    given = arguments(entry)
    by_query = given["cross_attention_shape_for_attn"] == "q"
    common = {"v_channels": given["v_channels"], "dropout": given["dropout_prob"]}
    cross = p.Block(
        heads=given["num_cross_attend_heads"],
        qk_channels=given["qk_channels"] or (given["num_z_channels"] if by_query else None),
        widening=given["cross_attend_widening_factor"],
        residual=given["use_query_residual"],
        **common,
    )
    latent = p.Block(
        heads=given["num_self_attend_heads"],
        qk_channels=given["qk_channels"],
        widening=given["self_attend_widening_factor"],
        **common,
    )
    blocks = (0,) * given["num_blocks"]
    depth = given["num_self_attends_per_block"]
    return p.Encoder(given["z_index_dim"], given["num_z_channels"], depth, cross, latent, towers=blocks)


def attending(given):
    """The cross-attend of a BasicDecoder."""
    names = {"heads": "num_heads", "qk_channels": "qk_channels", "v_channels": "v_channels"}
    return p.Block(residual=given["use_query_residual"], **{ours: given[theirs] for ours, theirs in names.items()})


def cells(given):
    """Grid of a decoder's queries."""
    if "output_shape" in given:
        return tuple(given["output_shape"][1:])
    dims = given.get("output_index_dims", 1)
    return (dims,) if isinstance(dims, int) else tuple(dims)


def query(given, inclusive):
    """The queries of a BasicDecoder."""
    if given["position_encoding_type"] == "trainable" and given.get("project_pos_dim", -1) <= 0:
        kind = given["trainable_position_encoding_kwargs"]
        return p.Slots(math.prod(cells(given)), kind["num_channels"], kind.get("init_scale", 0.02))
    return p.Grid(cells(given), position(given), inclusive=inclusive)


BASES = {
    "BasicDecoder": "basic_decoder",
    "ClassificationDecoder": "classification_decoder/~/basic_decoder",
    "BasicVideoAutoencodingDecoder": "basic_video_autoencoding_decoder/~/basic_decoder",
}
"""Haiku's name of the BasicDecoder inside."""


def asking(asked, theirs, ours):
    """Rows of the queries of a BasicDecoder, which makes its position encoding in its constructor."""
    if isinstance(asked, p.WithInput):
        return asking(asked.grid, theirs, f"{ours}.places")
    if isinstance(asked, p.Slots):
        return [row(f"{theirs}/~/trainable_position_encoding/pos_embs", f"{ours}.slots")]
    return haiku.position(asked.position, f"{theirs}/~", f"{ours}.position")


# --- whole networks -------------------------------------------------------------------------------------------------


def network(case, arrays):
    """A Perceiver with everything around it."""
    spec = case["spec"]
    modules = case.get("spec_with_defaults", spec["modules"])
    inputs = {key.removeprefix("inputs/"): value for key, value in arrays.items() if key.startswith("inputs/")}
    builder = {"plain": plain, "flow": optical_flow, "mlm": masked_language}[spec["forward"]]
    if spec["forward"] == "plain" and modules["decoder"]["class"].endswith("MultimodalDecoder"):
        builder = multimodal
    config, rows, raw, options = builder(spec, modules, inputs)
    model = loaded(config, rows, arrays, case["case"])
    yield from run(model, raw, options, arrays, bool(case.get("is_training")))


def loaded(config, rows, arrays, where):
    """The model with the case's weights."""
    found = {name: value for name, value in stored(arrays).items() if value.size}  # padding by no channels is empty
    wanted = weights(config.abstract())
    rows = [entry for entry in rows if entry.ours in wanted]  # what is left over in the file is still refused
    return tables.build(config, rows, found, where)


def stored(arrays):
    """Parameters and state of a case as one flat dict."""
    return {
        key.removeprefix(prefix): value
        for prefix in ("params/", "state/")
        for key, value in arrays.items()
        if key.startswith(prefix)
    }


def plain(spec, modules, inputs):
    """One modality, or raw vectors."""
    raw = inputs["x"]
    entry = modules["input_preprocessor"]
    name = "x" if entry is None else NAMES[entry["class"].split(".")[-1]]
    source = p.Vectors(*raw.shape[1:]) if entry is None else adapter(entry, raw.shape[1:])
    raw = raw[..., 0] if name == "audio" else raw
    latent = encoder(modules["encoder"])
    theirs = modules["encoder"]["kwargs"].get("name", "perceiver_encoder")
    rows = haiku.encoder(latent, theirs)
    if name in ("image", "audio"):
        rows += preprocessing(entry, source, name)
    kind, given = modules["decoder"]["class"].split(".")[-1], BASIC | arguments(modules["decoder"])
    at = inputs.get("subsampled/points")
    if kind == "ProjectionDecoder":
        output = p.Pooled(p.Classes(given["num_classes"]))
        rows += haiku_linear("projection_decoder/~/logits", "decoders.output.head.linear")
    else:
        asked = query(given, at is None)
        if given["concat_preprocessed_input"]:
            asked = p.WithInput(name, source.features if source.project is None else source.project, asked)
        classes = kind == "ClassificationDecoder"
        head = p.Classes(given["num_classes"]) if classes else p.Dense(given["output_num_channels"])
        output = p.Output(head, asked, attending(given))
        prefix = BASES[kind]
        rows += haiku.cross(f"{prefix}/cross_attention", "decoders.output.cross")
        rows += haiku_linear(f"{prefix}/output", "decoders.output.head.linear")
        rows += asking(asked, prefix, "decoders.output.query")
    config = p.PerceiverConfig({name: source}, latent, {"output": output})
    options = {"queries": {} if at is None else {"output": at}, "answers": {"output": "output"}}
    if "input_mask" in inputs:
        options["masks"] = {name: inputs["input_mask"].astype(bool)}
    if "query_mask" in inputs and kind == "BasicDecoder":  # the others drop it
        options["looking"] = {"output": inputs["query_mask"].astype(bool)}
    return config, rows, {name: raw}, options


def masked_language(spec, modules, inputs):
    """Bytes in, bytes out."""
    sizes = spec["mlm"]
    text = p.Bytes(sizes["max_seq_len"], sizes["d_model"])
    assert text.vocabulary == sizes["vocab_size"]
    output = p.Output(
        p.TokenLogits(text.vocabulary, tied_to="text"),
        query(BASIC | arguments(modules["decoder"]), True),
        attending(BASIC | arguments(modules["decoder"])),
    )
    config = p.PerceiverConfig({"text": text}, encoder(modules["encoder"]), {"text": output})
    everything = np.ones_like(inputs["x"])
    options = {
        "masks": {"text": inputs.get("input_mask", everything).astype(bool)},
        "looking": {"text": inputs.get("query_mask", everything).astype(bool)},
        "answers": {"text": "logits"},
    }
    return config, language.haiku_rows(config), {"text": inputs["x"]}, options


def optical_flow(spec, modules, inputs):
    """Two frames."""
    shape = inputs["x"].shape[2:]
    given = arguments(modules["input_preprocessor"])
    projected = given["num_channels"] if given["conv_after_patching"] else None
    frames = FramePair(shape, project=projected, position=position(given))
    decoder = arguments(modules["decoder"])
    scale = spec["flow_scale_factor"] / decoder["rescale_factor"]
    asked = p.FromTokens("frames", cells=shape[:2])
    output = p.Output(p.Flow(scale), asked, attending(BASIC | decoder))
    config = p.PerceiverConfig({"frames": frames}, encoder(modules["encoder"]), {"flow": output})
    return (
        config,
        flow.haiku_rows(config),
        {"frames": inputs["x"]},
        {
            "answers": {"flow": "flow"},
            "scale": spec["flow_scale_factor"],
        },
    )


def multimodal(spec, modules, inputs):
    """The autoencoder of clips, sound and label."""
    front, back = arguments(modules["input_preprocessor"]), arguments(modules["decoder"])
    parts = {name: adapter(entry, inputs[name].shape[1:]) for name, entry in front["modalities"].items()}
    post = modules["output_postprocessor"]["kwargs"]["modalities"]
    points = {name: inputs[f"subsampled/{name}"] for name in parts if f"subsampled/{name}" in inputs}
    outputs, widths = {}, {}
    for name, entry in back["modalities"].items():
        asked = query(BASIC | arguments(entry), name not in points)
        widths[name] = asked.channels(0, {})
        kind = post[name]["kwargs"]
        head = {
            "AudioPostprocessor": lambda kind=kind: p.SoundPatches(kind["samples_per_patch"], 48_000),
            "ProjectionPostprocessor": lambda kind=kind: p.Dense(kind["num_outputs"]),
            "ClassificationPostprocessor": lambda kind=kind: p.Classes(kind["num_classes"]),
        }[post[name]["class"].split(".")[-1]]()
        outputs[name] = p.Output(head, asked, trunk="joint")
    padding = back.get("min_padding_size", 2)
    trunk = p.Trunk(max(widths.values()) + padding, attending(BASIC | back), back["output_num_channels"])
    config = p.PerceiverConfig(
        parts,
        encoder(modules["encoder"]),
        outputs,
        trunks={"joint": trunk},
        mask_rates=front["mask_probs"] or {},
        modality_padding=front["min_padding_size"],
    )
    raw = {name: inputs[name] for name in parts}
    if "audio" in raw:
        raw["audio"] = raw["audio"][..., 0]
    options = {"queries": points, "answers": {name: name for name in outputs}}
    rows = kinetics.haiku_rows(config, modules["encoder"]["kwargs"].get("name", "perceiver_encoder"))
    rows = [entry for entry in rows if entry.ours != "decoders.label.query.slots"]
    for name, entry in back["modalities"].items():
        rows += asking(outputs[name].query, BASES[entry["class"].split(".")[-1]], f"decoders.{name}.query")
    for name in parts.keys() & {"image", "audio"}:
        rows += preprocessing(front["modalities"][name], parts[name], name)
    return config, rows, raw, options


def run(model, raw, options, arrays, train):
    """Outputs through the public calls, intermediates through their parts."""
    masks, queries, looking = (options.get(name, {}) for name in ("masks", "queries", "looking"))
    key = jax.random.key(0) if train else None
    graph, state = nnx.split(model)

    def outside(state):
        module = nnx.merge(graph, state)
        latents = module.encode(raw, masks, key=key)
        answers, after = module.decode(latents, queries=queries, looking=looking), weights(module)
        fresh = nnx.merge(graph, state)  # training moves the statistics of the other
        return answers, after, probes.inside(fresh, raw, masks, queries, looking, key)

    answers, after, inner = jax.jit(outside)(state)
    for name, theirs in options["answers"].items():
        yield answer(f"outputs/{theirs}", answers[name], arrays[f"outputs/{theirs}"])
    if "outputs/flow_unscaled" in arrays:
        yield Comparison("outputs/flow_unscaled", answers["flow"] / options["scale"], arrays["outputs/flow_unscaled"])
        yield Comparison("outputs/patches", neighbourhoods(raw["frames"], 3), arrays["outputs/patches"])
    if "outputs/output_embeddings" in arrays:
        theirs = arrays["outputs/output_embeddings"]
        yield Comparison("outputs/output_embeddings", inner["decoder_cross_attention_out"], theirs)
    tokens = inner.pop("tokens")
    visible = next(iter(masks.values()), None)
    for name, ours in inner.items():
        if f"inter/{name}" in arrays:
            yield hidden(f"inter/{name}", ours, arrays[f"inter/{name}"], visible if name == "encoder_inputs" else None)
    yield from front(model, raw, tokens, arrays, train)
    yield from statistics(model, after, arrays)


def answer(what, ours, theirs):
    """An answer in the reference's shape, which flattens grids and patches."""
    return Comparison(what, np.asarray(ours).reshape(theirs.shape), theirs)


def hidden(what, ours, theirs, visible):
    """Masked tokens may hold anything: nothing looks at them."""
    if visible is not None:
        ours, theirs = np.asarray(ours)[visible], theirs[visible]
    return Comparison(what, ours, theirs)


def front(model, raw, tokens, arrays, train):
    """What the preprocessors give, with positions and without."""
    modules = {"image": "image_preprocessor", "audio": "audio_preprocessor", "label": "one_hot_preprocessor"}
    for name, part in tokens.items():
        module = modules.get("image" if name == "frames" else name)
        if f"inter/preprocessed/{module}" not in arrays:
            continue
        yield Comparison(f"inter/preprocessed/{module}", part.values, arrays[f"inter/preprocessed/{module}"])
        theirs = arrays[f"inter/preprocessed_without_pos/{module}"]
        bare = part.values[..., : theirs.shape[-1]]
        if getattr(model.config.inputs[name], "add_position", False):
            embed = model.adapters[name].embed
            config = model.config.inputs[name]
            shape = (config.tokens,) if name == "audio" else config.grid
            bare = part.values - embed.position(p.positions.grid(shape))
        yield Comparison(f"inter/preprocessed_without_pos/{module}", bare, theirs)
    if "inter/conv_downsample_out" in arrays:
        stem = nnx.clone(model.adapters["image"].stem)
        yield from convolved(stem, raw["image"], arrays, train)


def convolved(stem, x, arrays, train):
    """Behind the last batch norm, and behind the whole stem."""
    out = jnp.asarray(x)
    for layer, convolution in enumerate(stem.convolutions):
        out = convolution(out)
        if stem.norms:
            out = stem.norms[layer](out, train=train)
        normed = out
        out = nnx.max_pool(jax.nn.relu(out), (3, 3), (2, 2), padding=stem.pooling)
    if "inter/batchnorm_out" in arrays and normed.shape == arrays["inter/batchnorm_out"].shape:
        yield Comparison("inter/batchnorm_out", normed, arrays["inter/batchnorm_out"])
    yield Comparison("inter/conv_downsample_out", out, arrays["inter/conv_downsample_out"])


def statistics(model, after, arrays):
    """Running averages after a training step, under Haiku's names."""
    if not any(key.startswith("new_state/") for key in arrays):
        return
    rows = haiku.stem(
        model.config.inputs["image"].stem, "image_preprocessor/~/conv2_d_downsample", "adapters.image.stem"
    )
    yield from averages(rows, after, arrays)


def averages(rows, after, arrays):
    """The rows that are running averages, of weights after a training step."""
    for entry, value in tables.write([entry for entry in rows if "_ema/" in entry.keys[0]], after).items():
        yield Comparison(f"new_state/{entry}", value, arrays[f"new_state/{entry}"])


# --- single parts ---------------------------------------------------------------------------------------------------


def component(entry, arrays, train):
    """A preprocessor or postprocessor alone."""
    kind, given, x = entry["class"].split(".")[-1], entry["kwargs"], arrays["inputs/x"]
    build = {"dtype": jnp.dtype("float32"), "rngs": nnx.Rngs(0)}
    if kind == "ImagePostprocessor":
        assert given["postproc_type"] == "patches"
        space, time = given.get("spatial_upsample", 1), given.get("temporal_upsample", 1)
        x = x.reshape(x.shape[0], *(given.get("input_reshape_size") or x.shape[1:-1]), x.shape[-1])
        patch = (space, space) if x.ndim == 4 else (time, space, space)
        yield Comparison("outputs/output", from_patches(x, patch), arrays["outputs/output"])
        return
    if kind == "Conv2DDownsample":
        config = p.ConvStem(given.get("num_channels", 64), given.get("num_layers", 1), given.get("use_batchnorm", True))
        module = config.build(x.shape[-1], **build)
        rows = haiku.stem(config, "conv2_d_downsample", "")
        rows = [entry._replace(ours=entry.ours.removeprefix(".")) for entry in rows]
    else:
        flat = kind == "Conv2DUpsample"
        space, time = (2, None) if flat else (given.get("n_space_upsamples", 4), given.get("n_time_upsamples", 2))
        module = Upsample(x.shape[-1], given["n_outputs"], space, time, **build)
        rows = upsampling(len(module.layers), flat)
    module = filled(module, rows, arrays)
    if kind == "Conv2DDownsample":
        yield from convolved(nnx.clone(module), x, arrays, train)
        yield Comparison("outputs/output", nnx.jit(lambda m, x: m(x, train=train))(module, x), arrays["outputs/output"])
        if train:
            yield from averages(rows, weights(module), arrays)
        return
    yield Comparison("outputs/output", jax.jit(lambda m, x: m(x))(module, x), arrays["outputs/output"])


def upsampling(layers, flat):
    """Rows of Conv2DUpsample and Conv3DUpsample; Haiku keeps [..., out, in]."""
    swapped = tables.Transform(lambda a: a.swapaxes(-1, -2), lambda a: a.swapaxes(-1, -2))
    rows = []
    for i in range(layers):
        theirs = f"conv2_d_upsample/~/transp_conv_{i + 1}" if flat else f"conv3_d_upsample/conv3d_transpose_{i}"
        rows += [row(f"{theirs}/w", f"layers.{i}.kernel", swapped), row(f"{theirs}/b", f"layers.{i}.bias")]
    return rows


def filled(module, rows, arrays):
    """A module with a case's weights."""
    found = stored(arrays)
    wanted = {name: leaf.shape for name, leaf in weights(module).items()}
    ours = tables.read(rows, found, wanted, "component")
    graph, state = nnx.split(module)
    tree = jax.tree_util.tree_structure(state)
    return nnx.merge(graph, jax.tree_util.tree_unflatten(tree, [jnp.asarray(ours[n]) for n in weights(module)]))


def functions(arrays):
    """Patches and attention."""
    for name, patch in (("4d", (2, 2)), ("5d", (2, 2, 2))):
        cut, back = f"space_to_depth_{name}", f"reverse_space_to_depth_{name}"
        yield Comparison(cut, to_patches(arrays[f"{cut}/x"], patch), arrays[f"{cut}/y"])
        yield Comparison(back, from_patches(arrays[f"{cut}/y"], patch), arrays[f"{back}/y"])
    found = neighbourhoods(jnp.asarray(arrays["patches_for_flow/x"]), 3)
    yield Comparison("patches_for_flow", found, arrays["patches_for_flow/y"])
    for key in [key for key in arrays if key.startswith("extract_patches/y_")]:
        sizes, strides, rates, *same = key.removeprefix("extract_patches/y_").split("_")
        numbers = [[int(n) for n in part.lstrip("sr").split("x")] for part in (sizes, strides, rates)]
        numbers = [part * 2 if len(part) == 1 else part for part in numbers]
        found = windows(arrays["extract_patches/x"], *numbers, padding="SAME" if same else "VALID")
        yield Comparison(key, found, arrays[key])
    q, k, v = (jnp.asarray(arrays[f"attend/{name}"]) for name in "qkv")
    mask = arrays["attend/mask"].astype(bool)[:, None]
    for key, chosen in (("y", None), ("y_masked", mask)):
        yield answer(f"attend/{key}", attend(q, k, v, chosen), arrays[f"attend/{key}"])
