"""Completion of overrides: groups, their choices, keys and their values, as Hydra finds them."""

from __future__ import annotations

import click

_OPEN = ("=", "/", ".")  # a shell would add a space to the only candidate, although a value must follow


def complete(context: click.Context, parameter: click.Parameter, word: str) -> list[str]:
    """Return the words that may stand in place of `word`.

    Bash splits words at "=": it gives and takes the part behind it.
    """
    before = [*context.args, *(context.params.get(parameter.name or "") or ())]
    if before[-1:] == ["="]:
        *before, key, _ = before
        start = f"{key}="
    else:
        start = ""
    return [found.removeprefix(start) for found in _candidates(_joined(before), start + word)]


def _joined(words: list[str]) -> list[str]:
    """Return words that were split at "=" as they were."""
    found: list[str] = []
    for word in words:
        if found and (word == "=" or found[-1].endswith("=")):
            found[-1] += word
        else:
            found.append(word)
    return found


def _candidates(before: list[str], word: str) -> list[str]:
    from hydra._internal.core_plugins.bash_completion import BashCompletion
    from hydra.core.global_hydra import GlobalHydra

    from headsweep.config.study.expansion import composer

    with composer():
        query = BashCompletion(GlobalHydra.instance().config_loader())._query
        found = query("train", " ".join([*before, word]))
        if len(found) == 1 and found[0].endswith(_OPEN):
            found = query("train", " ".join([*before, found[0]])) or found
    return [str(candidate) for candidate in found]
