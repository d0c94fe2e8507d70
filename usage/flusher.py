"""Carries the journal into the database, beside the path: turns its lines into usage events, metrics and logs.

    journal line -> (open + settle) -> metrics, one log line -> rows -> usage.services.insert_events

While the database is away the rows wait; when too many wait, lines wait in the journal instead, so memory stays flat
and nothing is lost. A row may be inserted twice (killed between commit and delete): its id makes that a no-op.

A record may carry more than a usage event has columns for (EXTRA: what policies found, texts to be kept). It goes to
whoever asked for it, in the transaction of the event: both are written or neither.
"""

from __future__ import annotations

import logging
import operator
import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

import orjson
from django.db import DatabaseError, InterfaceError, connection, transaction

from accounts.services import touch_keys
from usage import metrics
from usage.journal import Journal, Record, Segment, owners, segments_of, take_lock
from usage.services import EVENT_COLUMNS, insert_events

logger = logging.getLogger(__name__)

PERIOD_S = 0.25
SYNC_PERIOD_S = 0.1
ADOPT_PERIOD_S = 5.0
TOUCH_PERIOD_S = 30.0
BATCH_ROWS = 500
MAX_WAITING_ROWS = 20_000
MAX_WAITING_EXTRA_BYTES = 32 * 1024 * 1024
READ_BYTES = 1024 * 1024
RETRY_S = 1.0

# What a record may carry beside the columns of its usage event; see policies.recording for what is in them.
EXTRA = ("findings", "content", "moderation")
Also = Callable[[list[Record]], None]

to_row = operator.itemgetter(*EVENT_COLUMNS)
# Columns that few calls have, or that a journal of an older version does not.
LATER: Record = {"above_hold": False, "units": {}, "failed_tries": "", "spent_budget_id": None, "refused_by": ""}
# What a log line says of a call; never text, never a secret.
LOGGED = (
    "request_id", "endpoint", "key_label", "team_id", "model", "provider", "status", "error_code", "streamed",
    "prompt_tokens", "completion_tokens", "estimated", "cost_nano_usd", "latency_us", "first_byte_us", "attempts",
    "client_ip", "trace_id",
)  # fmt: skip
# What a reader of the log should notice about a call.
FLAGS: dict[str, Callable[[Record], bool]] = {
    "estimated": lambda record: record["estimated"],
    "unpriced": lambda record: record["cost_nano_usd"] is None,
    "fallback": lambda record: record["attempts"] > 1,
    "abandoned": lambda record: record["status"] == 499,
}
to_log = operator.itemgetter(*LOGGED)


Opened = tuple[Record, Segment]  # how a call began, and where that was written


class Waiting(NamedTuple):
    """A row on its way. `record`: all of it, if it carries more than the row; `extra_bytes`: how much, about."""

    row: tuple[object, ...]
    segment: Segment
    record: Record | None
    extra_bytes: int


class Flusher:
    """`start` and `stop` from the web process; everything else happens in its two threads.

    `also` is called with the records of a batch that carry something of EXTRA, in the transaction that inserts their
    events. It must bear to be called again with the same ones, and judge each record by itself: when it raises anything
    but what a database raises that is away, the events of the batch are written without it.
    """

    def __init__(
        self, journal: Journal, write_log: Callable[[bytes], None] | None = None, also: Also | None = None
    ) -> None:
        self.journal = journal
        self._write_log = write_log or _write_stdout
        self._also = also
        self._segments: dict[str, Segment] = {}
        self._open: dict[str, Opened] = {}
        self._early: list[tuple[Segment, Record]] = []  # endings whose beginning was not read yet
        self._rows: list[Waiting] = []
        self._extra_bytes = 0
        self._retired: list[str] = []
        self._used: dict[int, int] = {}  # key id -> last call, unix microseconds
        self._next_adoption = self._next_touch = self._next_try = 0.0
        self._failing = False
        self._behind = False  # there is more to read, and nothing in the way of it
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name="usage-flusher", daemon=True),
            threading.Thread(target=self._sync, name="journal-sync", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Drain what can be drained, then give the journal up. What is left is adopted by the next process."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout_s)
        self.journal.close()

    @property
    def waiting(self) -> int:
        """Rows that are read but not yet in the database."""
        return len(self._rows)

    def flush(self) -> bool:
        """One round: read, count, log, insert. True when the journal and the rows are drained."""
        self.journal.retry()
        self.journal.rotate_if_full()
        drained = self._read_own()
        self._insert()
        self._forget_drained()
        self._behind = not drained and not self._rows
        return drained and not self._rows

    def adopt(self) -> None:
        """Drain the segments of processes that have died. A call they left open becomes an event as it stands."""
        for owner in owners(self.journal.folder) - {self.journal.owner}:
            if time.monotonic() < self._next_try:
                return  # what cannot be written now need not be read
            path = self.journal.folder / f"{owner}.lock"
            lock = take_lock(path)
            if lock is None:
                continue
            try:
                if self._drain_dead(owner):
                    path.unlink(missing_ok=True)
            finally:
                os.close(lock)

    def _run(self) -> None:
        while not self._stopping.wait(0 if self._behind else PERIOD_S):
            self._guarded(self._round)
        self._guarded(self._last_round)
        connection.close()

    def _sync(self) -> None:
        while not self._stopping.wait(SYNC_PERIOD_S):
            self._guarded(self.journal.sync)

    def _round(self) -> None:
        self.flush()
        now = time.monotonic()
        if now >= self._next_adoption:
            self._next_adoption = now + ADOPT_PERIOD_S
            self.adopt()
        if now >= self._next_touch:
            self._next_touch = now + TOUCH_PERIOD_S
            self._touch()

    def _last_round(self) -> None:
        self._next_try = 0.0
        deadline = time.monotonic() + 5
        while not self.flush() and time.monotonic() < deadline:
            if self._failing:
                return
        self._touch()
        if not self._open and not self._rows:
            for segment in list(self._segments.values()):
                segment.path.unlink(missing_ok=True)
            (self.journal.folder / f"{self.journal.owner}.lock").unlink(missing_ok=True)

    def _guarded(self, step: Callable[[], object]) -> None:
        """The threads outlive any error; they say so and go on."""
        try:
            step()
        except Exception:
            logger.exception("the usage flusher failed; it goes on")

    def _read_own(self) -> bool:
        if len(self._rows) >= MAX_WAITING_ROWS or self._extra_bytes >= MAX_WAITING_EXTRA_BYTES:
            return False
        drained = True
        lines: list[bytes] = []
        early, self._early = self._early, []
        for path in segments_of(self.journal.folder, self.journal.owner):
            segment = self._segments.setdefault(path.name, Segment(path))
            self._take(segment, lines, self._open)
            if not segment.at_end:
                drained = False
                break  # the end of a call may be in the next segment, and must not be read before its beginning
        for segment, ending in early:
            self._settle(ending, segment, lines, self._open)
        self._log(lines)
        return drained

    def _take(self, segment: Segment, lines: list[bytes], opened: dict[str, Opened]) -> None:
        for record in segment.read(READ_BYTES):
            kind = record.pop("kind")
            if kind == "open":
                opened[record["id"]] = (record, segment)
                segment.unsettled += 1
                continue
            if kind == "note":
                if record["id"] in opened:
                    opened[record["id"]][0].update(record)
            elif kind == "whole":
                self._finish(record, segment, lines)
            elif not self._settle(record, segment, lines, opened):
                self._early.append((segment, record))

    def _settle(self, ending: Record, segment: Segment, lines: list[bytes], opened: dict[str, Opened]) -> bool:
        """False when no such call is open: settled twice, its opening was torn, or is not read yet, because the event
        loop was still writing it into the old segment while the next one began. The next round tells."""
        found = opened.pop(ending["id"], None)
        if found is None:
            return False
        found[1].unsettled -= 1
        self._finish({**found[0], **ending}, segment, lines)
        return True

    def _finish(self, record: Record, segment: Segment, lines: list[bytes]) -> None:
        try:
            row = to_row({**LATER, **record})
            lines.append(_log_line(record))
            metrics.count(record)
        except (KeyError, TypeError, ValueError):
            logger.exception("a journal record is not a usage event; it is skipped")
            return
        extra_bytes = _extra_bytes(record)
        self._extra_bytes += extra_bytes
        self._rows.append(Waiting(row, segment, record if extra_bytes else None, extra_bytes))
        segment.undrained += 1
        if record["key_id"] is not None:
            self._used[record["key_id"]] = record["at"]

    def _insert(self) -> None:
        if time.monotonic() < self._next_try:
            return
        while self._rows:
            batch = self._rows[:BATCH_ROWS]
            try:
                self._write(batch)
            except (DatabaseError, InterfaceError):
                self._database_failed()
                return
            if self._failing:
                self._failing = False
                logger.info("usage events are written again")
            del self._rows[: len(batch)]
            for one in batch:
                one.segment.undrained -= 1
                self._extra_bytes -= one.extra_bytes

    def _write(self, batch: list[Waiting]) -> None:
        rows = [one.row for one in batch]
        records = [one.record for one in batch if one.record is not None]
        if not records or self._also is None:
            insert_events(rows)
            return
        try:
            with transaction.atomic():
                insert_events(rows)
                self._also(records)
        except (DatabaseError, InterfaceError):
            raise
        except Exception:
            logger.exception("what policies found in %d calls cannot be written; it is left out", len(records))
            insert_events(rows)

    def _database_failed(self) -> None:
        if not self._failing:
            logger.exception("usage events cannot be written now; they wait in the journal")
        self._failing = True
        self._next_try = time.monotonic() + RETRY_S
        connection.close()

    def _forget_drained(self) -> None:
        """Delete each segment once all of it is in the database. It must have been retired a round ago: the event loop
        may still have been writing its last line into it when the next one began."""
        for name in self._retired:
            if name in self._segments and self._segments[name].is_drained:
                self._segments.pop(name).path.unlink(missing_ok=True)
        self._retired = sorted(self._segments)[:-1]

    def _drain_dead(self, owner: str) -> bool:
        """True when everything of `owner` is in the database and its segments are gone."""
        opened: dict[str, Opened] = {}
        lines: list[bytes] = []
        segments = [Segment(path) for path in segments_of(self.journal.folder, owner)]
        for segment in segments:
            size = -1
            while segment.offset != size:
                size = segment.offset
                self._take(segment, lines, opened)
                if not self._inserted_all():
                    self._give_up(segments)
                    return False
        for record, segment in opened.values():
            self._finish(record, segment, lines)
        if not self._inserted_all():
            self._give_up(segments)
            return False
        self._log(lines)
        for segment in segments:
            segment.path.unlink(missing_ok=True)
        if segments:
            logger.info("adopted the journal of a process that died: %d calls were open", len(opened))
        return True

    def _give_up(self, segments: list[Segment]) -> None:
        """Their rows are read again when the database is back."""
        given_up = [one for one in self._rows if one.segment in segments]
        self._rows = [one for one in self._rows if one.segment not in segments]
        self._extra_bytes -= sum(one.extra_bytes for one in given_up)
        self._early = [one for one in self._early if one[0] not in segments]

    def _inserted_all(self) -> bool:
        self._insert()
        return not self._rows

    def _touch(self) -> None:
        if not self._used:
            return
        used, self._used = self._used, {}
        try:
            touch_keys({key: datetime.fromtimestamp(at / 1e6, UTC) for key, at in used.items()})
        except (DatabaseError, InterfaceError):
            connection.close()
            self._used = {**used, **self._used}

    def _log(self, lines: list[bytes]) -> None:
        if lines:
            self._write_log(b"".join(lines))


def _extra_bytes(record: Record) -> int:
    carried = [record[name] for name in EXTRA if record.get(name)]
    return len(orjson.dumps(carried)) if carried else 0


def _log_line(record: Record) -> bytes:
    line = {"time": record["at"], "level": "info", "message": "call", **dict(zip(LOGGED, to_log(record), strict=True))}
    line["time"] = datetime.fromtimestamp(record["at"] / 1e6, UTC)
    line["flags"] = [flag for flag, holds in FLAGS.items() if holds(record)]
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _write_stdout(data: bytes) -> None:
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except (AttributeError, ValueError, OSError):
        return  # nobody reads our log: that must not stop the books
