"""Errors in the user's code, of a head or backbone in a package or file: one line that names it, with file and line.

Those of headsweep itself keep their tracebacks.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from headsweep.config import BACKBONES, HeadConfig, ModelConfig
from headsweep.config.records.head import HEADS
from headsweep.config.records.head_file import FileHeadConfig, shown
from headsweep.errors import ConfigError, UserError
from headsweep.heads import FittedHead, Head, head_class
from headsweep.loading import described, last_frame, load_class
from headsweep.models.backbone import Backbone


@dataclass(frozen=True)
class UserCode:
    """A class of a package or file.

    Args:
        key: the configuration key that chooses it.
        choice: its value.
        kind: the class.
        advice: what to do about an error.
    """

    key: str
    choice: str
    kind: type
    advice: str

    def error(self, error: BaseException) -> ConfigError:
        """Return an exception of the class in one line."""
        return ConfigError(self.key, self.choice, f"{described(error, self.kind.__module__)}{self.advice}")


def user_head(head: HeadConfig) -> UserCode | None:
    """Return the class of a head; None if it is one of headsweep. Raises UserError if it cannot be loaded."""
    if not isinstance(head, FileHeadConfig) and HEADS.package(head.name) is None:
        return None
    name = shown(head)
    return UserCode("head", name, head_class(head), f"; headsweep check-head {shlex.quote(name)} shows more")


def user_backbone(model: ModelConfig) -> UserCode | None:
    """Return the class of a backbone; None if it is one of headsweep. Raises UserError if it cannot be loaded."""
    if BACKBONES.package(model.family) is None:
        return None
    path = BACKBONES[model.family].class_path
    kind: type = load_class(f"model.family={model.family}", path, Backbone)  # type: ignore[type-abstract]
    return UserCode("model.family", model.family, kind, "")


@contextmanager
def building(owner: UserCode | None, *passing: type[Exception]) -> Iterator[None]:
    """Raise ConfigError for what a constructor raises, but for the exceptions `passing`."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        if owner is None or isinstance(error, passing):
            raise
        raise owner.error(error) from error


@contextmanager
def running(*owners: UserCode | None) -> Iterator[None]:
    """Raise ConfigError for an exception that has passed through the code of one of the classes."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        for owner in owners:
            if owner is not None and last_frame(error, owner.kind.__module__) is not None:
                raise owner.error(error) from error
        raise


def check_pooled(owner: UserCode | None, head: Head) -> None:
    """Raise ConfigError unless a head on the meta device pools tokens to (b k e)."""
    if owner is None or isinstance(head, FittedHead):
        return
    images = 2
    tokens = torch.empty(images, head.tokens + head.class_token, head.width, device="meta")
    with running(owner), torch.no_grad():
        pooled = head.eval().pool(tokens)
    if found := wrong_shape(pooled, (images, head.heads, head.pooled_width)):
        raise ConfigError(owner.key, owner.choice, f"{found}{owner.advice}")


def wrong_shape(pooled: object, expected: tuple[int, int, int]) -> str | None:
    """Return how pooled vectors differ from the shape (b k e); None if they have it."""
    found = tuple(pooled.shape) if isinstance(pooled, torch.Tensor) else type(pooled).__name__
    return None if found == expected else f"pool: expected (b, k, d) = {expected}, found {found}"
