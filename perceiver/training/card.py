"""The model card of a run, in the Hugging Face Hub's format, written from its report and from nothing else."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from perceiver.model import ModelConfig, PerceiverConfig
from perceiver.training.figures import counts, flat, scored


def model_card(report: Mapping[str, Any], config: ModelConfig) -> str:
    """A page with the metadata that the Hub reads (https://huggingface.co/docs/hub/model-cards).

    report: as in report.json. config: of the model that was trained.
    """
    name, training, test = report["name"], report["training"], report["test"]
    results = [
        EvalResult(
            task_type="other",
            dataset_type=name,
            dataset_name=name,
            dataset_split="test",
            metric_type=metric,
            metric_value=round(value, 6),
        )
        for metric, value in flat(test).items()
        if scored(metric)
    ]
    tags = ["perceiver", "jax", *(sorted(config.inputs) if isinstance(config, PerceiverConfig) else ())]
    data = ModelCardData(model_name=name, library_name="perceiver", tags=tags, eval_results=results or None)
    lines = [
        "---",
        data.to_yaml(),
        "---",
        "",
        f"# {name}",
        "",
        *_what(config),
        "",
        f"{training['parameters']:,} parameters, {training['steps']} steps, {report['seconds']} s in all on "
        f"{', '.join(report['machine']['devices'])}. The model of step {training['best_step']} was kept, by the "
        "validation split; the test split was used once, after that.",
        "",
        "## How good it is",
        "",
        "| figure | test | 95 % interval | untrained |",
        "|---|--:|--:|--:|",
    ]
    figures, untrained = flat(test), flat(report["control"].get("untrained", {}))
    for metric, value in figures.items():
        group, _, last = metric.rpartition(".")
        if "interval_95" in group.split("."):
            continue
        ends = [f"{group}.interval_95.{last}.{end}".lstrip(".") for end in ("low", "high")]
        between = " to ".join(f"{figures[end]:.4f}" for end in ends if end in figures)
        before = f"{untrained[metric]:.4f}" if metric in untrained and not counts(metric) else ""
        lines.append(f"| {metric.replace('_', ' ')} | {value:.4f} | {between} | {before} |")
    for title, figures in (("Simple methods on the same split", report["baselines"]), *_controls(report)):
        if figures:
            lines += ["", f"## {title}", "", "| figure | value |", "|---|--:|"]
            lines += [f"| {metric.replace('_', ' ')} | {value:.4f} |" for metric, value in flat(figures).items()]
    lines += [
        "",
        "## What to know before using it",
        "",
        "The figures are of one test split of one dataset; on other data they will differ. Nothing else was measured:",
        "not how it treats groups of people, not what it does with other inputs, not how sure it is when it is wrong.",
        "",
        "Trained with " + ", ".join(f"`{n}={v}`" for n, v in report["arguments"].items()) + ".",
        "With " + ", ".join(f"{n} {v}" for n, v in report["machine"]["versions"].items()) + ".",
        "",
    ]
    return "\n".join(lines)


def _what(config: ModelConfig) -> list[str]:
    """What goes in and what comes out, where the declaration says it by name."""
    if not isinstance(config, PerceiverConfig):
        return [f"A {type(config).__name__.removesuffix('Config')}, made with perceiver."]
    return [
        "A Perceiver that takes " + _listed({n: type(adapter).__name__ for n, adapter in config.inputs.items()}),
        "and answers " + _listed({n: type(output.head).__name__ for n, output in config.outputs.items()}) + ".",
    ]


def _controls(report: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    others = {name: figures for name, figures in report["control"].items() if name != "untrained"}
    return [(f"Control: {name.replace('_', ' ')}", figures) for name, figures in others.items()]


def _listed(kinds: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
