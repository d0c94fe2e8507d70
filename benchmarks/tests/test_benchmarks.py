"""The figures are honest: what is counted, what is compared, what passes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import load, machine, measure, mock_upstream, subjects
from benchmarks.driver import Reader
from benchmarks.report import Report, Targets


def test_target_that_is_just_met_passes_and_one_above_it_fails() -> None:
    report = Report()
    assert report.judge("a", 2.0, 2.0, "{:.1f}x") == "2.0x (at most 2.0x: pass)"
    assert report.judge("b", 2.1, 2.0, "{:.1f}x") == "2.1x (at most 2.0x: **FAIL**)"
    assert report.judge("c", None, 2.0, "{:.1f}x") == "-"
    assert (report.met, report.missed) == (1, ["b"])


def test_one_slow_round_does_not_bend_the_ratio() -> None:
    bare, gatehouse = [100.0, 400.0, 110.0], [200.0, 450.0, 220.0]
    assert measure.ratio(gatehouse, bare) == 2.0


def test_table_compares_with_the_bare_relay_and_judges_only_what_has_a_target() -> None:
    bare = measure.Figures("bare", whole_cpu_us=[100], requests_per_s=[5000], p50_us=[300])
    mine = measure.Figures("mine", whole_cpu_us=[250], requests_per_s=[2000], p50_us=[500])
    report = Report()
    report.speed([bare, mine], bare, {"mine": Targets(whole_ratio=2.0, added_ms=0.3)})
    assert "| bare | 100 µs | 1.00x | 5,000 | 300 µs | - |" in report.lines
    assert any("2.50x (at most 2.00x: **FAIL**)" in line and "+0.20 ms" in line for line in report.lines)
    assert report.summary() == "1 targets met, 1 missed: mine: CPU per request."


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="CPU is read from Linux's /proc")
def test_cpu_of_children_counts_alive_and_dead() -> None:
    burn = "import time\nt = time.process_time() + 0.17\nwhile time.process_time() < t: pass"
    before = machine.cpu_s(os.getpid())
    subprocess.run([sys.executable, "-c", burn], check=True)
    assert machine.cpu_s(os.getpid()) - before >= 0.15  # the kernel counts in hundredths
    with subprocess.Popen([sys.executable, "-c", f"{burn}\ninput()"], stdin=subprocess.PIPE) as child:
        assert child.pid in machine.tree(os.getpid())
        assert machine.settled_cpu_s(child.pid) >= 0.15
        child.communicate(b"\n")


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
async def test_events_are_counted_once_however_they_are_cut(size: int) -> None:
    answer = mock_upstream.STREAM_HEAD + mock_upstream.CHUNK * 20 + mock_upstream.LAST + mock_upstream.END
    reader = Reader(b"", 0, asyncio.get_running_loop().create_future())
    reader.transport = _Transport()  # type: ignore[assignment]
    reader.ask()
    for at in range(0, len(answer), size):
        reader.data_received(answer[at : at + size])
    assert reader.chunks == 22
    assert reader.transport.closed  # type: ignore[attr-defined]


async def test_answer_is_whole_only_with_its_last_byte() -> None:
    reader = Reader(b"", 0, asyncio.get_running_loop().create_future())
    reader.buffer = mock_upstream.WHOLE_REPLY[:-1]
    assert not reader.is_whole()
    reader.buffer = mock_upstream.WHOLE_REPLY
    assert reader.is_whole()


def test_chat_request_is_about_160_bytes() -> None:
    assert 130 <= len(load.chat_body("bench")) <= 180


def test_error_is_never_counted_as_speed() -> None:
    request = load.Request(1, "/", {}, b"")
    subject = subjects.Subject("mine", request, request, None)
    with pytest.raises(measure.Failed, match="3 errors"):
        measure._checked(subject, load.Answered(count=10, seconds=1, errors=3))


class _Transport:
    closed = False

    def write(self, data: bytes) -> None:
        pass

    def close(self) -> Any:
        self.closed = True
