"""What a configuration key affects. The schema states it beside the key: `device: Annotated[str, PACE]`.

A key without traits has the `USUAL` ones, or those of its section.
"""

from dataclasses import dataclass
from enum import Flag, auto
from typing import Any


class Trait(Flag):
    """A property of a key."""

    RESULT = auto()  # its value changes a run's numbers: it is part of the fingerprint
    PACE = auto()  # its value changes the seconds of a step or the steps of an epoch
    MEMORY = auto()  # its value changes the memory that a step takes
    DATA = auto()  # its value decides which images a run is trained and tested on
    SUMMARY = auto()  # recorded among a run's parameters even if no sweep varies it
    PLANNED = auto()  # filled in from data and files when a run is planned
    SHARED = auto()  # has one value for all cells of a command


NOTHING = Trait(0)
RESULT, PACE, MEMORY, DATA = Trait.RESULT, Trait.PACE, Trait.MEMORY, Trait.DATA
SUMMARY, PLANNED, SHARED = Trait.SUMMARY, Trait.PLANNED, Trait.SHARED
USUAL = RESULT | PACE | MEMORY


@dataclass(frozen=True)
class Neutral:
    """The plain value of an added key with which a run is what it was before the key existed.

    At this value the key is in no hash, so that earlier runs keep their fingerprints; earlier configurations get it.
    """

    value: Any
