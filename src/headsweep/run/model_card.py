"""The model card of a trained run: README.md of a folder for the Hugging Face hub."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import yaml  # type: ignore[import-untyped]

from headsweep.config import RunConfig, spec_of
from headsweep.report.read.cells import Cell
from headsweep.report.stats.inference import Estimate, estimate
from headsweep.tracking.run_record import RunRecord, RunResult

ACCURACIES = {"top1": "Top-1 accuracy", "top5": "Top-5 accuracy"}

_USE = """\
## Use

```python
import headsweep.models  # registers the architecture with timm
import timm
import torch

model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()  # or "hf-hub:USER/NAME"
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
logits = model(torch.zeros(1, {channels}, {side}, {side}))  # (1, {classes})
```

`pip install {packages}` (headsweep {version} wrote this folder). Images are {side} x {side} pixels with {channels}
channel(s), scaled to [0, 1] and normalised with mean {mean} and standard deviation {std}.
"""

_CITATION = """\
## Citation

```bibtex
@software{{headsweep,
  author = {{{{The headsweep authors}}}},
  title = {{headsweep}},
  version = {{{version}}},
  license = {{MIT}}
}}
```

The head `{head}` is from {source}; cite its paper and that of the backbone as well. CITATION.cff of headsweep lists
them.
"""


@dataclass(frozen=True)
class Subject:
    """The run that a card describes."""

    run: RunConfig
    record: RunRecord
    result: RunResult
    cell: Cell  # the run and those that differ in the seed alone
    weights: str  # best or last
    license: str  # identifier of the hub, e.g. mit


def model_card(subject: Subject) -> str:
    """Return the card: metadata with the metrics of the cell, then text."""
    metadata = yaml.safe_dump(_metadata(subject), sort_keys=False, allow_unicode=True)
    parts = [_summary(subject), _results(subject), _use(subject), _training(subject), _licence(subject)]
    head = subject.run.head.name
    citation = _CITATION.format(version=version("headsweep"), head=head, source=spec_of(subject.run.head).source)
    return f"---\n{metadata}---\n\n" + "\n".join([*parts, citation])


def _metadata(subject: Subject) -> dict[str, Any]:
    dataset = subject.run.dataset.name
    return {
        "license": subject.license,
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "timm", "headsweep"],
        "model-index": [
            {
                "name": subject.record.name,
                "results": [
                    {
                        "task": {"type": "image-classification", "name": "Image Classification"},
                        "dataset": {"name": dataset, "type": dataset, "split": "test"},
                        "metrics": [_metric(name, mean) for name, mean in _measured(subject).items()],
                    }
                ],
            }
        ],
    }


def _measured(subject: Subject) -> dict[str, Estimate]:
    """Return accuracy -> its mean over the seeds of the cell, in percent, for the weights of the card."""
    by_seed = {name: subject.cell.by_seed(_metric_name(subject, name)) for name in ACCURACIES}
    return {name: estimate([100 * value for value in values.values()]) for name, values in by_seed.items() if values}


def _metric_name(subject: Subject, name: str) -> str:
    return f"{'best' if subject.weights == 'best' else 'test'}/{name}"


def _metric(name: str, mean: Estimate) -> dict[str, Any]:
    """Return an entry of the model index: the hub shows its value and name, and keeps `args`."""
    interval: dict[str, Any] = {}
    if mean.half_width is not None:
        limits = [mean.mean - mean.half_width, mean.mean + mean.half_width]
        interval = {"interval": [round(limit, 2) for limit in limits], "interval_kind": "95 % t-interval over seeds"}
    return {
        "type": "accuracy" if name == "top1" else "top_5_accuracy",
        "name": f"{ACCURACIES[name]} %, {_words(mean)}",
        "value": round(mean.mean, 2),
        "args": {"seeds": mean.n, **interval},
    }


def _words(mean: Estimate) -> str:
    if mean.n == 1:
        return "one seed, no interval"
    return f"mean over {mean.n} seeds" + ("" if mean.half_width is None else f" ± {mean.half_width:.2f}")


def _summary(subject: Subject) -> str:
    run, cost = subject.run, subject.record.cost
    branches = "1 head" if run.heads == 1 else f"{run.heads} heads in parallel"
    size = f" {cost['parameters']:,} trained parameters." if "parameters" in cost else ""
    epoch = "best epoch on validation images" if subject.weights == "best" else "last epoch"
    frozen = f" The backbone was not trained (backbone={run.backbone.value})." if run.backbone.is_frozen else ""
    return (
        f"# {subject.record.name}\n\nAn image classifier for {run.dataset.num_classes} classes: backbone "
        f"`{run.model.name}`, {branches} of kind `{run.head.name}` ({spec_of(run.head).summary}).{size}{frozen}\n"
        f"\nThe weights are those of the {epoch}"
        f" of one run, seed {subject.record.seed}.\n"
    )


def _results(subject: Subject) -> str:
    lines = [
        "## Results",
        "",
        f"Accuracy on the test images of {subject.run.dataset.name} in percent. The mean and its 95 % t-interval "
        f"are over {len(subject.cell.finished)} finished of {len(subject.cell.runs)} planned seeds of one "
        "configuration; the weights here are those of one of these runs.",
        "",
        "| metric | mean over seeds | seeds | this run |",
        "| --- | --- | --- | --- |",
    ]
    for name, mean in _measured(subject).items():
        spread = "" if mean.half_width is None else f" ± {mean.half_width:.2f}"
        own = 100 * subject.result.metrics.get(_metric_name(subject, name), float("nan"))
        lines.append(f"| {ACCURACIES[name]} | {mean.mean:.2f}{spread} | {mean.n} | {own:.2f} |")
    return "\n".join([*lines, ""])


def _use(subject: Subject) -> str:
    data = subject.run.dataset
    return _USE.format(
        channels=data.channels,
        side=data.image_size,
        classes=data.num_classes,
        mean=data.mean,
        std=data.std,
        version=version("headsweep"),
        packages=" ".join(["headsweep", *subject.record.packages]),
    )


def _training(subject: Subject) -> str:
    record, environment = subject.record, subject.result.environment
    commit = record.code.get("commit") or "unknown"
    rows = {
        **record.parameters,
        "fingerprint of the run": record.fingerprint,
        "commit of headsweep": f"{commit}, with uncommitted changes" if record.code.get("dirty") else commit,
        "epochs, steps": f"{subject.result.epochs}, {subject.result.steps}",
        **{key: environment[key] for key in ("device", "precision", "torch", "python") if environment.get(key)},
    }
    table = "\n".join(f"| `{_cell(key)}` | {_cell(value)} |" for key, value in rows.items())
    return (
        f"## Training\n\n| key | value |\n| --- | --- |\n{table}\n\n"
        "Intended use, limitations and biases: to be written by the authors.\n"
    )


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _licence(subject: Subject) -> str:
    start = (
        "" if subject.run.model.checkpoint is None else " Training started from other weights, whose licence applies."
    )
    return f"## Licence\n\n{subject.license}. The code of headsweep is under the MIT licence.{start}\n"
