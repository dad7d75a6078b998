"""A cluster of scripts that keep what they are given, for what is decided on the login node."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from headsweep.tracking.run_folder import RunFolder
from scripts import Scripts


class Sbatch(Scripts):
    """Commands on the PATH: sbatch keeps the files that it is given, and the others print nothing."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        keep = f'[ "$1" = --test-only ] && exec cat > {place}/asked.$n; cp "$1" {place}/$n.given'
        lines = f"n=$(ls {place}/*.* | wc -l); {keep}; echo Submitted batch job $((10 + n))"
        for name, words in {"scontrol": ":", "squeue": ":", "sacct": ":", "sinfo": ":", "srun": ":"}.items():
            self.write(name, words)
        self.write("sbatch", lines)

    def files(self, kind: str = "given") -> list[str]:
        """What it was given, or asked with --test-only, in this order."""
        found = sorted(self.place.glob("*.*"), key=lambda path: path.stat().st_mtime_ns)
        return [path.read_text() for path in found if kind in path.name]


def sweep_of(runs: Sequence[RunFolder]) -> Path:
    path = runs[0].output.sweeps / "one"
    path.mkdir(parents=True, exist_ok=True)
    return path


def asked(file: str) -> list[str]:
    """The resources that a file of sbatch asks for."""
    return re.findall(r"#SBATCH --(mem=\S+|time=\S+|gpus-per-node=\S+|array=[\d-]+)", file)


FULL = "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit)"
SBATCH = """
cd {place}
n=$(ls *.* | wc -l)
[ "$1" = --test-only ] && exec cat > asked.$n
cat "${{1:--}}" > $n.part
name=$(sed -n "s/^#SBATCH --job-name=//p" $n.part)
last=$(sed -n "s/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p" $n.part)
queued=$(cat jobs standby | wc -l)
[ $((queued + ${{last:-0}})) -lt {limit} ] || {{ rm $n.part; echo "{full}" >&2; exit 1; }}
case $name in headsweep.standby.*) kind=standby ;; *) kind=jobs ;; esac
for element in $(seq 0 ${{last:-0}}); do
  [ -n "$last" ] || element=N/A
  echo "$((10 + n))|$((10 + n))|$element|PENDING|1||0:00|$name|None" >> $kind
done
mv $n.part $n.$([ $kind = jobs ] && echo given || echo reserve)
echo Submitted batch job $((10 + n))
"""
SQUEUE = """
cd {place}
case "$*" in
  *standby*) cut -d"|" -f1 standby ;;
  *--me*) sed "s/.*/lab|PENDING/" jobs standby ;;
  *) cat jobs ;;
esac
"""


class Queue(Sbatch):
    """As `Sbatch`, with a queue in which jobs stay pending, up to so many of the user."""

    def __init__(self, place: Path, limit: int = 99) -> None:
        super().__init__(place)
        for name in ("jobs", "standby"):  # lines of squeue
            (place / name).touch()
        self.write("scontrol", f'echo "$@" >> {place}/asked; [ "$1" != show ] || echo ClusterName = lion')
        self.write("scancel", f'echo "$@" >> {place}/cancelled')
        self.write("squeue", SQUEUE.format(place=place))
        self.write("sbatch", SBATCH.format(place=place, limit=limit, full=FULL))

    def end(self, *jobs: str) -> None:
        """Let the jobs with these numbers end, or all."""
        path = self.place / "jobs"
        left = [line for line in path.read_text().splitlines() if jobs and line.partition("|")[0] not in jobs]
        path.write_text("".join(f"{line}\n" for line in left))

    def lines(self, name: str) -> list[str]:
        """What a command was asked, call by call; or its answers."""
        path = self.place / name
        return path.read_text().splitlines() if path.exists() else []
