"""What the forms of keys, teams, users and rules may name. The apps that know fill it in when they are ready:
accounts imports no other app."""

from __future__ import annotations

from collections.abc import Callable, Mapping

Names = Callable[[], list[str]]
PerMtok = tuple[int, int]  # nano-USD per million tokens: input, output
Prices = Callable[[], Mapping[str, PerMtok | None]]


def _none() -> list[str]:
    return []


_sources: dict[str, Names] = {"models": _none, "callable": _none, "endpoints": _none, "providers": _none}


def set_names(**sources: Names) -> None:
    """`models`, `callable`, `endpoints`, `providers`: asked each time a form is shown or judged, so they may query."""
    _sources.update(sources)


_prices: list[Prices] = [dict]


def set_prices(source: Prices) -> None:
    """What every model costs by its dearest route; None: nobody knows. Asked when a form is judged, so it may query."""
    _prices[:] = [source]


def prices() -> Mapping[str, PerMtok | None]:
    return _prices[0]()


def model_names() -> list[str]:
    return _sources["models"]()


def callable_names() -> list[str]:
    """The models that a call can be answered for at the moment."""
    return _sources["callable"]()


def endpoint_names() -> list[str]:
    return _sources["endpoints"]()


def provider_names() -> list[str]:
    """Those that are switched on."""
    return _sources["providers"]()
