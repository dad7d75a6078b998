"""`headsweep.load`: the trained model of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from headsweep.api.errors import user_errors
from headsweep.errors import UserError
from headsweep.folders import default_output
from headsweep.status.find import find_run

if TYPE_CHECKING:
    from headsweep.run.predictor import Predictor


def load(run: str | Path, *, weights: Literal["last", "best"] = "last", output: str | Path | None = None) -> Predictor:
    """Return the trained model of a run on the CPU, in evaluation mode.

    It maps pixels (b c h w) from 0 to 255, at the run's image size, in float32, to mean logits (b l): images are
    normalised as in training. `model.classifier` is the model of normalised images.

    Args:
        run: fingerprint or name of a run, or the beginning of one, or its folder; rows have `fingerprints`.
        weights: "last": after the last epoch, as tables compare them; "best": of the best epoch on validation images.
        output: output folder of the runs, `paths.output`.

    Raises:
        UserError: there is no such run, or its weights are missing or damaged.
    """
    if weights not in ("last", "best"):
        raise UserError(f"weights={weights}: expected last or best")
    if not isinstance(run, str | Path):
        raise UserError(f"run={run!r}: expected a text, the fingerprint or name of a run, or its folder as a Path")
    with user_errors():
        place = default_output() if output is None else Path(output).expanduser()
        folder = find_run(str(run), place)
        from headsweep.plan.frozen import frozen
        from headsweep.run.load_model import trained
        from headsweep.run.predictor import Predictor

        return Predictor(trained(folder, best=weights == "best"), frozen(folder).dataset).eval()
