"""Measures subjects in turns, so that what else the machine does falls on all of them alike."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import load, machine
from benchmarks.subjects import Subject

STREAMS = 200


class Failed(Exception):
    """A subject did not answer properly, so its figures would mean nothing."""


@dataclass(slots=True)
class Figures:
    """One subject's rounds. CPU in microseconds per request or per event of a stream."""

    name: str
    whole_cpu_us: list[float] = field(default_factory=list)
    requests_per_s: list[float] = field(default_factory=list)
    p50_us: list[float] = field(default_factory=list)
    event_cpu_us: list[float] = field(default_factory=list)
    beside_cpu_us: dict[str, list[float]] = field(default_factory=dict)


def in_turns(folder: Path, subjects: Sequence[Subject], rounds: int, seconds: int, streams: bool) -> list[Figures]:
    """Raises Failed."""
    figures = [Figures(subject.name) for subject in subjects]
    for subject in subjects:
        _whole(folder, subject, Figures(subject.name), 1)  # warms up pools and caches
    for _ in range(rounds):
        for subject, its in zip(subjects, figures, strict=True):
            _whole(folder, subject, its, seconds)
        for subject, its in zip(subjects, figures, strict=True):
            its.p50_us.append(_checked(subject, load.ask(folder, subject.whole, 1, 1)).p50_us)
        for subject, its in zip(subjects, figures, strict=True):
            if streams:
                _streamed(folder, subject, its)
    return figures


def memory_growth(folder: Path, subject: Subject, few: int = 1_000, many: int = 100_000) -> tuple[float, float]:
    """Resident megabytes after `few` and after `many` requests; a little more than that, the load runs by the clock."""
    assert subject.pid
    done, rate = 0, 1000.0
    marks: list[float] = []
    for goal in (few, many):
        while done < goal:
            seconds = min(math.ceil((goal - done) / rate), 30)
            answered = _checked(subject, load.ask(folder, subject.whole, subject.connections, seconds))
            done += answered.count
            rate = answered.count / answered.seconds
        machine.settled_cpu_s(subject.pid)
        marks.append(machine.memory_mb(subject.pid))
    return marks[0], marks[1]


def median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def ratio(values: Sequence[float], base: Sequence[float]) -> float | None:
    """The median of the ratios of each round, which a slow minute of the machine does not bend."""
    return median([value / other for value, other in zip(values, base, strict=False)])


def _whole(folder: Path, subject: Subject, figures: Figures, seconds: int) -> None:
    before = _cpu_s(subject)
    beside = {name: (pid, machine.cpu_s(pid)) for name, pid in subject.beside.items() if pid}
    answered = _checked(subject, load.ask(folder, subject.whole, subject.connections, seconds))
    figures.requests_per_s.append(answered.count / answered.seconds)
    if before is not None and subject.pid:
        used = machine.settled_cpu_s(subject.pid) - before
        figures.whole_cpu_us.append(used / answered.count * 1e6)
    for name, (pid, began) in beside.items():
        used = machine.cpu_s(pid) - began
        figures.beside_cpu_us.setdefault(name, []).append(used / answered.count * 1e6)


def _streamed(folder: Path, subject: Subject, figures: Figures) -> None:
    before = _cpu_s(subject)
    answered = _checked(subject, load.stream(folder, subject.streamed, STREAMS))
    if before is not None and subject.pid:
        used = machine.settled_cpu_s(subject.pid) - before
        figures.event_cpu_us.append(used / answered.count * 1e6)


def _cpu_s(subject: Subject) -> float | None:
    return machine.cpu_s(subject.pid) if subject.pid else None


def _checked(subject: Subject, answered: load.Answered) -> load.Answered:
    if answered.errors or not answered.count:
        raise Failed(f"{subject.name}: {answered.errors} errors in {answered.count} answers")
    return answered
