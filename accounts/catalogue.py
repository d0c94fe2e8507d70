"""What the forms of keys, teams and users may offer to choose from. The apps that know fill it in when they are ready:
accounts imports no other app."""

from __future__ import annotations

from collections.abc import Callable

Names = Callable[[], list[str]]


def _none() -> list[str]:
    return []


_sources: dict[str, Names] = {"models": _none, "endpoints": _none}


def set_names(models: Names, endpoints: Names) -> None:
    """`models` and `endpoints` are asked each time a form is shown, so they may query."""
    _sources.update(models=models, endpoints=endpoints)


def model_names() -> list[str]:
    return _sources["models"]()


def endpoint_names() -> list[str]:
    return _sources["endpoints"]()
