"""Charts of the admin's pages: figures in, JSON for the theme's Chart.js out, and the same in words.

Shown by templates/admin/chart.html.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

GREY = "#9ca3af"
Series = tuple[str, list[Any], str]  # name, a value for each label, the CSS variable of its colour


@dataclass(frozen=True, slots=True)
class Chart:
    """`data` and `options` are JSON for Chart.js; `summary` says the same in words. `legend`: (colour class, name)."""

    title: str
    summary: str
    kind: str
    data: str
    options: str
    legend: tuple[tuple[str, str], ...] = ()


def chart_data(labels: list[str], series: list[Series], kind: str) -> str:
    """`kind`: "bar" (on top of each other) or "line"."""
    datasets = [
        {
            "label": name,
            "data": values,
            "stack": "calls" if kind == "bar" else name,
            "backgroundColor": f"var({colour})",
            "borderColor": f"var({colour})",
            "borderRadius": 2,
            "borderWidth": 0 if kind == "bar" else 2,
            "pointRadius": 1.5,
            "pointHitRadius": 8,
            "cubicInterpolationMode": "monotone",
        }
        for name, values, colour in series
    ]
    return json.dumps({"labels": labels, "datasets": datasets})


def chart_options(**y_ticks: Any) -> str:
    """Nothing moves, nothing overlaps, and as few lines as will do."""
    ticks = {"color": GREY, "maxTicksLimit": 4, **y_ticks}
    options = {
        "animation": False,
        "responsive": True,
        "maintainAspectRatio": False,
        "interaction": {"mode": "index", "intersect": False},
        "plugins": {"legend": {"display": False}},
        "scales": {
            "x": {
                "border": {"display": False},
                "grid": {"display": False},
                "ticks": {"color": GREY, "maxTicksLimit": 7, "maxRotation": 0},
            },
            "y": {"beginAtZero": True, "border": {"display": False}, "grid": {"display": True}, "ticks": ticks},
        },
    }
    return json.dumps(options)
