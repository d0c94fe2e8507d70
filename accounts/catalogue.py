"""What the forms of keys, teams, users and rules may name. The apps that know fill it in when they are ready:
accounts imports no other app."""

from __future__ import annotations

from collections.abc import Callable

Names = Callable[[], list[str]]


def _none() -> list[str]:
    return []


_sources: dict[str, Names] = {"models": _none, "endpoints": _none, "providers": _none}


def set_names(**sources: Names) -> None:
    """`models`, `endpoints`, `providers`: asked each time a form is shown or judged, so they may query."""
    _sources.update(sources)


def model_names() -> list[str]:
    return _sources["models"]()


def endpoint_names() -> list[str]:
    return _sources["endpoints"]()


def provider_names() -> list[str]:
    """Those that are switched on."""
    return _sources["providers"]()
