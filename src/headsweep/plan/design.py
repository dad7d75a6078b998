"""The design of a sweep: what its study declares about the cells, by the groups of their runs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from headsweep.config import RunConfig
from headsweep.config.study.language import Study
from headsweep.config.study.points import Point
from headsweep.config.study_keys import SWEEPER
from headsweep.data.locate import has_validation
from headsweep.errors import ConfigError
from headsweep.plan.fingerprint import differing, group, identity
from headsweep.text import shortened
from headsweep.tracking.design import Design, Margin

Identity = Mapping[str, Any]
_MOST_ARMS = 5  # that are listed


@dataclass(frozen=True)
class Declared:
    """A study, and where in it each configuration of a command comes from."""

    study: Study
    points: Sequence[Point]


def design_of(declared: Declared, runs: Sequence[RunConfig]) -> Design:
    """Return the design of a study's runs; its margin is as if none of them had finished.

    Raises:
        ConfigError: the baseline has no cell, or a key is tuned where no images are held out for validation.
    """
    study, points = declared.study, declared.points
    variants: dict[str, str] = {}
    for point, run in zip(points, runs, strict=True):
        if point.variant is not None:
            variants.setdefault(group(run), point.variant)
    if variants and study.baseline not in variants.values():
        raise ConfigError(
            f"{SWEEPER}.baseline", study.baseline, "expected a variant with a cell of its own, found none"
        )
    identities = [identity(run) for run in runs]
    variant_keys = _differing(identities, [(point.block, point.axes) for point in points]) if variants else []
    if study.tune:
        _check_validation(runs)
    return Design(
        variants,
        [key for key in variant_keys if key != "seed"],
        study.baseline if variants else None,
        _tuned(study, points, identities),
        None if study.margin is None else Margin(study.margin),
    )


def unequal_tuning(tune: Sequence[str], runs: Sequence[RunConfig]) -> tuple[str, ...]:
    """Return a line on arms that have unequal numbers of settings, such as after an exclusion; none if they are equal.

    Args:
        tune: dotted keys of the tuned axes.
        runs: of all arms.
    """
    settings: dict[str, set[str]] = {}
    arms: dict[str, Identity] = {}
    for found in map(identity, runs) if tune else ():
        arm = {key: value for key, value in found.items() if key not in tune and key != "seed"}
        arms.setdefault(repr(arm), arm)
        settings.setdefault(repr(arm), set()).add(repr([found.get(key) for key in tune]))
    counts = {name: len(found) for name, found in settings.items()}
    most = max(counts.values(), default=0)
    fewer = [name for name, count in counts.items() if count < most]
    if not fewer:
        return ()
    keys = differing(list(arms.values()))
    listed = [
        f"{' '.join(f'{key}={arms[name][key]}' for key in keys if key in arms[name])}: {counts[name]}" for name in fewer
    ]
    expected = f"expected as many settings of {', '.join(tune)} for each arm ({most})"
    return (f"{SWEEPER}.tune: {expected}, found fewer for {shortened(listed, _MOST_ARMS, '; ')}",)


def continued(earlier: Design, new: Design, finished: int) -> Design:
    """Return the design of a sweep after another command of it.

    What the command does not declare stays as it was. A margin was declared when its value was first given, after
    `finished` runs if that is now.
    """
    kept = new if new.variants else earlier
    margin = earlier.margin
    if new.margin is not None and (margin is None or margin.points != new.margin.points):
        margin = replace(new.margin, finished=finished)
    return Design(kept.variants, kept.variant_keys, kept.baseline, new.tune or earlier.tune, margin)


def _tuned(study: Study, points: Sequence[Point], identities: Sequence[Identity]) -> list[str]:
    """Return the dotted keys of the tuned axes."""
    if not study.tune:
        return []
    at_equal_others = [
        (point.block, point.variant, tuple(word for word in point.axes if word not in point.tuned)) for point in points
    ]
    known = {key for identity in identities for key in identity}
    named = [key for axis in study.tune for key in (axis, f"{axis}.name") if key in known]
    return list(dict.fromkeys([*named, *_differing(identities, at_equal_others)]))


def _differing(identities: Sequence[Identity], coordinates: Sequence[Hashable]) -> list[str]:
    """Return the keys in which runs with equal coordinates differ."""
    together: dict[Hashable, list[Identity]] = {}
    for found, where in zip(identities, coordinates, strict=True):
        together.setdefault(where, []).append(found)
    return list(dict.fromkeys(key for alike in together.values() for key in differing(alike)))


def _check_validation(runs: Sequence[RunConfig]) -> None:
    for run in runs:
        if not has_validation(run.dataset):
            expected = f"expected images held out for validation, on which {SWEEPER}.tune chooses values"
            raise ConfigError(
                "dataset.validation", run.dataset.validation, f"{expected}; no validation images, no tuning"
            )
