"""What the files of a run hold: its identity, its outcome and its state."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from headsweep.text import is_file_name
from headsweep.tracking.cost import RunCost
from headsweep.tracking.metrics_log import MOST
from headsweep.tracking.typed_files import check_shares, require

MOST_COUNTED = 10**18  # parameters or FLOPs of a model: more than any model has
_COMMIT = re.compile(r"[0-9a-f]{4,64}")


class RunState(Enum):
    """State of a run, in the order in which states are counted.

    `value` is how progress and plans name it, `label` how messages, tables and pages do.
    """

    # Implied by the files of the run:
    finished = "finished"
    running = "running"
    failed = "failed"
    diverged = "diverged"  # the loss became NaN or infinite: a result, not a failure of the program
    partial = "partial"  # interrupted: its checkpoint can be continued
    new = "new"
    # Of a new or partial run, in the view of its sweep:
    queued = "queued"  # waits for a job in a cluster
    lost = "lost"  # its job ended without a result
    screened_out = "screened out"
    # Its files cannot be read:
    damaged = "damaged"

    @property
    def label(self) -> str:
        """The state in words."""
        return {"new": "not started", "partial": "unfinished"}.get(self.value, self.value)


@dataclass(frozen=True)
class RunRecord:
    """The identity of a run."""

    fingerprint: str  # of the full resolved configuration, without keys that only affect where it runs
    group: str  # fingerprint without the seed
    name: str  # for display, e.g. seqattn4-cct_2_3x2-digits-seed0
    sweep: str  # name of the sweep that planned it first
    seed: int
    config: dict[str, Any]  # nested, resolved
    parameters: dict[str, Any]  # dotted key -> value: the identity keys and those that a sweep varies
    # "commit" and "dirty", perhaps "version" and "digest" (plan.git_state), "packages", "changes", and "continued": the
    # other versions that trained it further
    code: dict[str, Any]
    cost: RunCost

    def check(self) -> None:
        """Raise ValueError for values out of range; a hexadecimal commit cannot be an option of git."""
        require("fingerprint", self.fingerprint, is_file_name(self.fingerprint), "the name of a folder")
        for key in ("group", "name", "sweep"):
            require(key, getattr(self, key), getattr(self, key).isprintable(), "a text of printable characters")
        # No upper limit: hashes and dates are seeds, too.
        require("seed", self.seed, self.seed >= 0, "an integer of at least 0")
        commit, dirty = self.code.get("commit"), self.code.get("dirty", False)
        is_commit = commit is None or (isinstance(commit, str) and _COMMIT.fullmatch(commit) is not None)
        require("code.commit", commit, is_commit, "a hash in hexadecimal digits")
        require("code.dirty", dirty, isinstance(dirty, bool), "true or false")
        patch = self.code.get("changes", "0000")
        is_digest = isinstance(patch, str) and _COMMIT.fullmatch(patch) is not None
        require("code.changes", patch, is_digest, "a hash in hexadecimal digits")
        packages = self.code.get("packages", {})
        is_plain = isinstance(packages, dict) and all(isinstance(text, str) for text in packages.values())
        require("code.packages", packages, is_plain, "names with versions")
        for key in ("version", "digest", "continued"):
            value = self.code.get(key, "")
            require(f"code.{key}", value, isinstance(value, str) and value.isprintable(), "a text")
        for key, count in self.cost.items():
            require(f"cost.{key}", count, 0 <= count <= MOST_COUNTED, f"an integer in [0, {MOST_COUNTED}]")

    @property
    def packages(self) -> dict[str, str]:
        """Distribution -> version and digest, of each package beside headsweep from which it uses something."""
        return self.code.get("packages", {})

    @property
    def code_name(self) -> str:
        """The versions of the code that trained it, in a few words, equal for equal versions: see `code_name`."""
        later = self.code.get("continued")
        return code_name(self.code) + (f", then {later}" if later else "")

    @property
    def data(self) -> str:
        """Name and digest of the images for training and testing, equal for equal images."""
        from headsweep.config.keys import has_trait  # imported here because it is slow and `status` does not need it
        from headsweep.config.traits import DATA

        images = [
            {key: value for key, value in self.config.get(section, {}).items() if has_trait(f"{section}.{key}", DATA)}
            for section in ("dataset", "debug")
        ]
        digest = hashlib.sha256(json.dumps(images, sort_keys=True).encode()).hexdigest()[:8]
        return f"{images[0].get('name')}-{digest}"


def code_name(code: Mapping[str, Any], digits: int = 10) -> str:
    """Return the short commit, with "-dirty" if there were uncommitted changes, as `git describe --dirty` does.

    What was changed is named by the digest of the patch, if that was stored: "0123456789-dirty-89abcdef". Without a
    commit it is the version of the package and the digest of its code.
    """
    if commit := code.get("commit"):
        changes = f"-{patch[:8]}" if (patch := code.get("changes")) else ""
        return commit[:digits] + f"-dirty{changes}" * bool(code.get("dirty"))
    if digest := code.get("digest"):
        return f"headsweep {code.get('version', 'unknown')} ({digest})"
    return "unknown version" + "-dirty" * bool(code.get("dirty"))


@dataclass(frozen=True)
class RunResult:
    """The outcome of a run."""

    state: str  # finished or diverged
    metrics: dict[str, float]  # the last value of every metric
    epochs: int
    steps: int
    clock: dict[str, float] = field(default_factory=dict)  # train_seconds, images_per_second, peak_memory_gib, ...
    environment: dict[str, Any] = field(default_factory=dict)  # device, threads, versions
    note: str = ""  # e.g. at which step the loss became NaN

    def check(self) -> None:
        """Raise ValueError for values out of range."""
        ends = (RunState.finished.value, RunState.diverged.value)
        require("state", self.state, self.state in ends, " or ".join(ends))
        for key in ("epochs", "steps"):
            require(key, getattr(self, key), 0 <= getattr(self, key) <= MOST, f"an integer in [0, {MOST}]")
        for key, value in self.clock.items():
            require(f"clock.{key}", value, not value < 0, "a number of at least 0")
        require("note", self.note, self.note.isprintable(), "a text of printable characters")
        check_shares(self.metrics)


@dataclass(frozen=True)
class RunSnapshot:
    """A run at one moment."""

    state: RunState
    record: RunRecord
    result: RunResult | None


def other_run(content: Any, fingerprint: str | None) -> str | None:
    """Return what is wrong with a file of weights that another run has written; None if it may be of this one.

    Older versions wrote no fingerprint.
    """
    found = content.get("fingerprint") if isinstance(content, dict) else None
    if found is None or fingerprint in (None, found):
        return None
    return f"was written by another run: expected the weights of {fingerprint}, found those of {found}"
