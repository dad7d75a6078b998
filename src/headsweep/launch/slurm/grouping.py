"""Runs by what their jobs ask of the cluster: those with other needs go into other arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from headsweep.config.keys import all_keys
from headsweep.config.launcher.launchers import wrong
from headsweep.config.launcher.needs import RESOURCES, read_need
from headsweep.config.launcher.slurm import SlurmConfig
from headsweep.config.omegaconf_errors import unknown_key
from headsweep.plan.past_costs import plain
from headsweep.plan.plan import Plan
from headsweep.tracking.run_folder import RunFolder

Chunk = tuple[RunFolder, ...]  # the runs of one job


@dataclass(frozen=True)
class Group:
    """Runs whose jobs ask for the same."""

    settings: SlurmConfig
    runs: Sequence[RunFolder]
    special: str = ""  # how the settings differ from those of the sweep, e.g. memory=32GB

    def chunks(self) -> list[Chunk]:
        """Return the runs by job."""
        size = self.settings.runs_per_job
        return [tuple(self.runs[first : first + size]) for first in range(0, len(self.runs), size)]

    def arrays(self, limit: int) -> list[list[Chunk]]:
        """Return the runs by job, the jobs by array of at most `limit`."""
        chunks = self.chunks()
        return [chunks[first : first + limit] for first in range(0, len(chunks), limit)]


def grouped(
    runs: Iterable[RunFolder],
    settings: SlurmConfig,
    configs: Mapping[RunFolder, Mapping[str, Any]] | None = None,
    recorded: Mapping[RunFolder, Mapping[str, int | str]] | None = None,
    minutes: Mapping[RunFolder, int] | None = None,
) -> list[Group]:
    """Return runs by what their jobs ask for, in the order of the first run of each group.

    Args:
        runs: of one sweep.
        settings: of the sweep, with the needs of its cells.
        configs: of the runs; None: they are in their folders.
        recorded: resources of some runs by the records of finished ones, for what no need sets.
        minutes: time of the jobs of some runs, which replaces any other.
    """
    found: dict[tuple[object, ...], tuple[SlurmConfig, list[RunFolder]]] = {}
    for run in runs:
        own = settings
        if settings.needs or recorded:
            config = configs[run] if configs else run.record().config
            own = settings.of_run(config, (recorded or {}).get(run, {}))
        if minutes and run in minutes:
            own = replace(own, time=minutes[run])
        found.setdefault(_resources(own), (own, []))[1].append(run)
    return [Group(own, members, _special(own, settings)) for own, members in found.values()]


def check_needs(settings: SlurmConfig, configs: Sequence[Mapping[str, Any]]) -> None:
    """Check the conditions of `needs` on the configurations of all runs of a sweep; print which ones meet no run.

    Raises:
        ConfigError: no run has a key, or a condition orders text.
    """
    for need in map(read_need, settings.needs):
        if unknown := set.intersection(*(need.unknown(config) for config in configs)) - set(all_keys()):
            raise wrong("needs", repr(need.text), str(unknown_key(min(unknown))))
        try:
            uses = [need.applies(config) for config in configs]  # of all runs, as each can have a wrong value
        except ValueError as error:
            raise wrong("needs", repr(need.text), str(error)) from error
        if not any(uses):
            print(f"hydra.launcher.needs={need.text!r} applies to no run of this sweep")


def configs_of(plan: Plan, settings: SlurmConfig) -> dict[RunFolder, dict[str, Any]] | None:
    """Return the configurations of the runs of a plan, which need not be written yet; None if they do not matter."""
    if not settings.needs and not settings.from_records:
        return None
    return {planned.folder: plain(planned.run) for planned in plan.runs}


def _resources(settings: SlurmConfig) -> tuple[object, ...]:
    return tuple(getattr(settings, key) for key in RESOURCES)


def _special(own: SlurmConfig, settings: SlurmConfig) -> str:
    keys = [key for key in RESOURCES if getattr(own, key) != getattr(settings, key)]
    return " ".join(f"{key}={getattr(own, key)}" for key in keys)
