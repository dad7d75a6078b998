"""The reproducibility checklists of NeurIPS and ACL, answered with the numbers of a sweep as far as its records go.

NeurIPS: the paper checklist of the conference's style file, questions 4 to 8 and 12. ACL: the responsible NLP research
checklist of ARR, sections B and C. Questions are shortened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import Any

from headsweep.report.read.cells import Cell, Run
from headsweep.report.table.hyperparameters import is_hyperparameter
from headsweep.report.table.inconsistencies import seed_list
from headsweep.report.table.model import Table
from headsweep.text import plural, shortened

AUTHORS = "To be answered by the authors."
_MOST_VALUES = 8


def checklists(table: Table, name: str) -> str:
    """Return both checklists as Markdown."""
    facts = _facts(table)
    parts = [
        f"# Reproducibility checklists for {name}\n",
        "Numbers are from the records of the sweep. What no record states is left to the authors.\n",
    ]
    for title, questions in (("NeurIPS paper checklist", _NEURIPS), ("ACL responsible NLP research checklist", _ACL)):
        parts.append(f"## {title}\n")
        for question, keys in questions:
            answer = " ".join(sentence for key in keys for sentence in facts[key]) or AUTHORS
            parts.append(f"**{question}**\n\n{answer}\n")
    return "\n".join(parts)


_NEURIPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("1 to 3. Claims, limitations, theory", ()),
    ("4. Reproducibility of the experimental result: what is needed to reproduce it", ("code", "commands", "seeds")),
    ("5. Open access to data and code", ("code", "data_access")),
    ("6. Experimental setting: data splits, hyper-parameters and how they were chosen", ("splits", "search", "fixed")),
    ("7. Statistical significance: error bars and what they capture", ("seeds", "intervals", "lost")),
    ("8. Compute resources: hardware, memory, time of each run and in total", ("hardware", "compute", "unrecorded")),
    ("9 to 11. Ethics, broader impacts, safeguards", ()),
    ("12. Licences of existing assets", ("licence",)),
    ("13 to 16. New assets, human subjects, declaration of LLM usage", ()),
)
_ACL: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("A. Limitations and risks", ()),
    ("B1 to B5. Artifacts: creators, licences, intended use, personal data, documentation", ("licence",)),
    ("B6. Statistics of the data: numbers of examples and splits", ("splits",)),
    (
        "C1. Number of parameters, total computational budget, infrastructure",
        ("size", "compute", "hardware", "unrecorded"),
    ),
    ("C2. Experimental setup: hyper-parameter search and best values", ("search", "chosen", "fixed")),
    (
        "C3. Descriptive statistics: error bars, and whether results are of one run or a mean",
        ("seeds", "intervals", "lost"),
    ),
    ("C4. Packages and their versions", ("packages", "code")),
    ("D and E. Human annotators, use of AI assistants", ()),
)


def _facts(table: Table) -> dict[str, list[str]]:
    cells, runs = table.cells, [run for cell in table.cells for run in cell.runs]
    return {
        "code": list(_code(runs)),
        "commands": [
            "The commands are in commands.txt and the frozen configuration of each run in runs/*/config.yaml."
        ],
        "seeds": list(_seeds(cells, runs)),
        "data_access": [
            f"Data: {', '.join(sorted({run.data for run in runs if run.data}))} (name and digest of what selects "
            "the images).",
            "Access to data and code: to be answered by the authors.",
        ],
        "splits": list(_splits(runs)),
        "search": list(_search(table)),
        "chosen": list(_chosen(table)),
        "fixed": list(_fixed(cells)),
        "intervals": list(_intervals(table)),
        "lost": list(_lost(runs)),
        "hardware": list(_hardware(runs)),
        "compute": list(_compute(runs)),
        "unrecorded": ["Runs outside this sweep (preliminary or failed experiments): to be answered by the authors."],
        "licence": ["headsweep is under the MIT licence. Licences of data and weights: to be answered by the authors."],
        "size": list(_size(cells)),
        "packages": list(_packages(runs)),
    }


def _code(runs: Sequence[Run]) -> Iterator[str]:
    yield f"Code: {_counted(run.record.code_name for run in runs)}."
    if any(run.record.code.get("changes") for run in runs):
        yield "The changes that were not committed are in changes/."
    elif any(run.record.code.get("dirty") for run in runs):
        yield "The changes that were not committed were not stored."


def _counted(places: Iterable[str]) -> str:
    """Return each text with the number of runs that have it."""
    return "; ".join(f"{place} ({plural(count, 'run')})" for place, count in Counter(places).items())


def _seeds(cells: Sequence[Cell], runs: Sequence[Run]) -> Iterator[str]:
    seeds = seed_list(sorted({run.record.seed for run in runs}))
    counts = sorted({len(cell.finished) for cell in cells})
    yield (
        f"{plural(len(runs), 'run')} of {plural(len(cells), 'configuration')}; {seeds}, {_range(counts)} finished for "
        "each configuration. A seed draws initial weights, data order, augmentation and validation split."
    )


def _splits(runs: Sequence[Run]) -> Iterator[str]:
    for name, config in {run.data: run.record.config for run in runs}.items():
        data, debug = config.get("dataset", {}), config.get("debug", {})
        alike = [run for run in runs if run.data == name]
        side, tested = data.get("image_size"), _test_images(alike)
        yield (
            f"{data.get('name')}: {data.get('num_classes')} classes, images of {side} x {side} pixels; "
            f"{_held_out(data.get('validation'))}; {tested} test images."
        )
        steps = sorted({run.result.steps // run.result.epochs for run in alike if run.result and run.result.epochs})
        if steps:
            batch = config.get("batch_size")
            yield f"An epoch of training images is {_range(steps)} optimizer steps of {batch} images."
        for key in ("train_images", "eval_images"):
            if debug.get(key):
                yield f"Only the first {debug[key]} images of a split are used (debug.{key})."


def _range(counts: Sequence[int]) -> str:
    """Return ascending numbers as the first, or as the first to the last."""
    return f"{counts[0]:,}" if counts[0] == counts[-1] else f"{counts[0]:,} to {counts[-1]:,}"


def _held_out(share: float | None) -> str:
    if share:
        return f"{100 * share:g} % of the training images, drawn by the seed, are for validation"
    return "no training images are held out for validation"


def _test_images(runs: Sequence[Run]) -> str:
    predictions = [run.folder.test_correct() for run in runs if run.folder is not None]
    counts = sorted({len(correct) for correct in predictions if correct is not None})
    return " or ".join(map(str, counts)) or "an unknown number of"


def _search(table: Table) -> Iterator[str]:
    varied = [axis for axis in table.axes if is_hyperparameter(axis)]
    for axis in varied:
        yield f"{axis}: {_values(table.cells, axis)}."
    if not varied:
        yield "No hyper-parameter varies within this sweep."
    elif table.tuned:
        trials = " or ".join(map(str, sorted({len(arm.settings) for arm in table.arms})))
        yield (
            f"{', '.join(table.tuned)} is chosen for each row among {trials} settings by the mean over seeds of the "
            "accuracy on validation images after the last epoch; test images play no part."
        )
    else:
        yield f"{plural(len(table.cells), 'configuration')} were trained, and none was chosen by a result."
    yield "How the other values and the ranges were chosen: to be answered by the authors."


def _chosen(table: Table) -> Iterator[str]:
    for arm in table.arms:
        cell = arm.chosen.cell
        best = ", ".join(f"{key}={cell.value(key)}" for key in table.tuned)
        yield f"Best for head={cell.head} heads={cell.heads}: {best}."


def _fixed(cells: Sequence[Cell]) -> Iterator[str]:
    records = [cell.record.parameters for cell in cells]
    same = [
        f"{key}={value}"
        for key, value in records[0].items()
        if key != "seed" and all(record.get(key) == value for record in records)
    ]
    if same:
        yield f"Shared by all configurations: {', '.join(same)}."


def _values(cells: Sequence[Cell], axis: str) -> str:
    values = list(dict.fromkeys(str(cell.value(axis)) for cell in cells))
    return f"{plural(len(values), 'value')} ({shortened(values, _MOST_VALUES)})"


def _intervals(table: Table) -> Iterator[str]:
    yield (
        "Intervals are 95 % t-intervals over seeds (Student's t, sample standard deviation); the report also has "
        "intervals over seeds and test images. Differences are paired by seed; p is two-sided, from a paired t-test, "
        f"Holm-corrected over the planned differences of the table. Metric: {table.metric}, on test images, with the "
        "weights of the last epoch."
    )
    if max((len(cell.finished) for cell in table.cells), default=0) < 2:
        yield "One seed has no interval."


def _lost(runs: Sequence[Run]) -> Iterator[str]:
    lost = [run.screened_out or run.state.label for run in runs if not run.finished]
    yield f"Runs without a result: {_counted(lost)}." if lost else "All runs have finished."


def _hardware(runs: Sequence[Run]) -> Iterator[str]:
    environments = _environments(runs)
    if environments:
        yield f"Hardware: {_counted(map(_place, environments))}."
    for key, noun in (("peak_memory_gib", "memory of a process"), ("peak_gpu_memory_gib", "GPU memory")):
        if peaks := _measured(runs, key):
            yield f"Peak {noun}: at most {max(peaks):.2f} GiB."


def _environments(runs: Sequence[Run]) -> list[dict[str, Any]]:
    return [run.result.environment for run in runs if run.result and run.result.environment]


def _measured(runs: Sequence[Run], key: str) -> list[float]:
    return [run.result.clock[key] for run in runs if run.result and key in run.result.clock]


def _place(environment: dict[str, Any]) -> str:
    numbers = [f"{environment[key]} {key}" for key in ("threads", "ranks") if environment.get(key)]
    precision = [environment["precision"]] if environment.get("precision") else []
    return ", ".join([str(environment.get("device", "unknown device")), *numbers, *precision])


def _compute(runs: Sequence[Run]) -> Iterator[str]:
    seconds = _measured(runs, "train_seconds")
    if seconds:
        total, middle, low, high = map(_duration, (sum(seconds), median(seconds), min(seconds), max(seconds)))
        yield (
            f"Training time: {total} in total over {plural(len(seconds), 'run')}, median {middle} per run "
            f"(from {low} to {high})."
        )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _size(cells: Sequence[Cell]) -> Iterator[str]:
    for key, noun in (("parameters", "trained parameters"), ("flops", "FLOPs of one image's forward pass")):
        counts = sorted(cell.record.cost[key] for cell in cells if key in cell.record.cost)
        if counts:
            yield f"{noun[0].upper()}{noun[1:]}: {_range(counts)}."


def _packages(runs: Sequence[Run]) -> Iterator[str]:
    if environments := _environments(runs):
        yield f"{_counted(map(_versions, environments))}."


def _versions(environment: dict[str, Any]) -> str:
    own = [f"{key} {environment[key]}" for key in ("python", "torch", "cuda") if environment.get(key)]
    return ", ".join([*own, *([environment["packages"]] if environment.get("packages") else [])])
