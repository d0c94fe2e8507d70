"""The figures as Markdown tables, with what design asks for beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks.checks import Cost
from benchmarks.measure import Figures, median, ratio


@dataclass(frozen=True, slots=True)
class Targets:
    """At most so much, compared with the bare relay. None: nothing is asked."""

    whole_ratio: float | None = None
    stream_ratio: float | None = None
    added_ms: float | None = None


PLAIN = Targets(whole_ratio=2.0, stream_ratio=1.3, added_ms=0.3)
# With a word list that reads every event, and holds some of it back.
EVERYTHING = Targets(whole_ratio=3.0, stream_ratio=3.0, added_ms=1.0)
EVERYTHING_REDIS = Targets(whole_ratio=3.5, stream_ratio=3.0)
MEMORY_GROWTH_PERCENT = 10.0
TWO_WORKERS_RATIO = 1.18


@dataclass(slots=True)
class Report:
    """Collects the tables' lines, and which targets were met."""

    lines: list[str] = field(default_factory=list)
    met: int = 0
    missed: list[str] = field(default_factory=list)

    def say(self, line: str = "") -> None:
        self.lines.append(line)

    def table(self, *titles: str) -> Callable[..., None]:
        """Gives the function that adds a row."""
        self.say("| " + " | ".join(titles) + " |")
        self.say("| --- |" + " ---: |" * (len(titles) - 1))
        return lambda *cells: self.say("| " + " | ".join(cells) + " |")

    def judge(self, what: str, value: float | None, at_most: float | None, form: str) -> str:
        """The value, with the target and whether it is met when there is one."""
        if value is None:
            return "-"
        text = form.format(value)
        if at_most is None:
            return text
        if value <= at_most:
            self.met += 1
            return f"{text} (at most {form.format(at_most)}: pass)"
        self.missed.append(what)
        return f"{text} (at most {form.format(at_most)}: **FAIL**)"

    def speed(self, figures: Sequence[Figures], base: Figures, targets: dict[str, Targets]) -> None:
        self.say("Whole answers: CPU per request at 32 connections, latency at one.\n")
        row = self.table("", "CPU per request", "vs bare", "requests/s", "p50", "added p50")
        for its in figures:
            target = targets.get(its.name, Targets())
            row(
                its.name,
                _number(median(its.whole_cpu_us), "{:.0f} µs"),
                self.judge(
                    f"{its.name}: CPU per request",
                    ratio(its.whole_cpu_us, base.whole_cpu_us),
                    target.whole_ratio,
                    "{:.2f}x",
                ),
                _number(median(its.requests_per_s), "{:,.0f}"),
                _number(median(its.p50_us), "{:.0f} µs"),
                self.judge(f"{its.name}: added latency", _added_ms(its, base), target.added_ms, "{:+.2f} ms"),
            )
        if any(its.event_cpu_us for its in figures):
            self.say("\nStreams: 200 at once, 100 events each, 10 ms apart.\n")
            row = self.table("", "CPU per event", "vs bare")
            for its in figures:
                target = targets.get(its.name, Targets())
                value = ratio(its.event_cpu_us, base.event_cpu_us)
                row(
                    its.name,
                    _number(median(its.event_cpu_us), "{:.1f} µs"),
                    self.judge(f"{its.name}: CPU per event", value, target.stream_ratio, "{:.2f}x"),
                )

    def workers(self, one: Figures, two: Figures) -> None:
        self.say("\nWith Redis: two workers against one, on the same core, 32 connections for each worker.\n")
        row = self.table("", "CPU per request", "vs one worker", "requests/s")
        for its, target in ((one, None), (two, TWO_WORKERS_RATIO)):
            row(
                its.name,
                _number(median(its.whole_cpu_us), "{:.0f} µs"),
                self.judge(
                    "two workers: CPU per request", ratio(its.whole_cpu_us, one.whole_cpu_us), target, "{:.2f}x"
                ),
                _number(median(its.requests_per_s), "{:,.0f}"),
            )
        for name, values in two.beside_cpu_us.items():
            row(f"{name} itself, per request", _number(median(values), "{:.0f} µs"), "", "")

    def checks(self, costs: Iterable[Cost], at_most_us: float) -> None:
        self.say("\nChecks: CPU of one rule on a prompt of 2 KB and a reply of 1 KB.\n")
        row = self.table("", "ASCII", "other text (folding it included)")
        for cost in costs:
            judged = self.judge(f"check {cost.check}", cost.ascii_us, at_most_us, "{:.0f} µs")
            row(cost.check, judged, _number(cost.foreign_us, "{:.0f} µs"))

    def memory(self, name: str, few_mb: float, many_mb: float) -> None:
        self.say("\nMemory of the process.\n")
        row = self.table("", "after 1,000 requests", "after 100,000", "growth")
        growth = (many_mb / few_mb - 1) * 100
        judged = self.judge(f"{name}: memory", growth, MEMORY_GROWTH_PERCENT, "{:+.1f} %")
        row(name, f"{few_mb:.1f} MB", f"{many_mb:.1f} MB", judged)

    def summary(self) -> str:
        if not self.missed:
            return f"All {self.met} targets met." if self.met else "No targets apply."
        return f"{self.met} targets met, {len(self.missed)} missed: {'; '.join(self.missed)}."


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _added_ms(its: Figures, base: Figures) -> float | None:
    if its is base:
        return None
    return median([(mine - bare) / 1000 for mine, bare in zip(its.p50_us, base.p50_us, strict=False)])
