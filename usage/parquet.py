"""Usage events as Parquet, for data warehouses and notebooks. Columns as usage.exports.COLUMNS has them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterator
from queue import Empty, Full, Queue
from typing import IO, Any, cast

from arro3.core import Array, DataType, Field, RecordBatch, RecordBatchReader, Schema
from arro3.io import write_parquet

from accounts.time_ids import to_unix_us
from usage.exports import COLUMNS

Rows = list[list[Any]]

# A group is compressed in one go, holding up this process for some 15 ms at this size.
ROWS_IN_GROUP = 20_000
LOOK_AGAIN_S = 0.5

TEXT, NUMBER, FLAG = DataType.utf8(), DataType.int64(), DataType.bool()
USD, TIME = DataType.decimal128(28, 9), DataType.timestamp("us", tz="UTC")
_FLAGS = {"streamed", "estimated", "above_hold"}
_NUMBERS = {
    *("key_id", "user_id", "team_id", "status", "prompt_tokens", "completion_tokens", "cached_tokens"),
    *("cache_write_tokens", "reasoning_tokens", "latency_us", "first_byte_us", "attempts", "spent_budget_id"),
}


def _type_of(column: str) -> DataType:
    if column == "at":
        return TIME
    if column.endswith("_usd"):
        return USD
    if column in _NUMBERS:
        return NUMBER
    return FLAG if column in _FLAGS else TEXT


SCHEMA = Schema([Field(column, _type_of(column), nullable=True) for column in COLUMNS])


def written(pages: Iterator[Rows]) -> Generator[bytes, None, None]:
    """The file, in parts. Money comes as text in US dollars, documents as JSON text.

    The writer wants to ask for its rows; we want to be asked for its bytes. So it has a thread of its own, which only
    ever waits for the next page: pages are read (and the database is asked) by whoever asks for the parts.
    """
    writer = _Writer()
    try:
        for page in pages:
            writer.take(_batch(page))
            if part := writer.given():
                yield part
        yield writer.end()
    finally:
        writer.abandon()


def _batch(rows: Rows) -> RecordBatch:
    columns = zip(*rows, strict=True)
    return RecordBatch.from_arrays(
        [_array(column, list(values)) for column, values in zip(COLUMNS, columns, strict=True)], schema=SCHEMA
    )


def _array(column: str, values: list[Any]) -> Array:
    if column == "at":
        return Array([to_unix_us(value) for value in values], NUMBER).cast(TIME)
    if column == "id":
        return Array([str(value) for value in values], TEXT)
    kind = _type_of(column)
    return Array(values, TEXT).cast(USD) if kind == USD else Array(values, kind)


class _Writer:
    """Stands where the library wants a file, and for the rows that are still to come."""

    def __init__(self) -> None:
        self._batches: Queue[RecordBatch | None] = Queue(maxsize=1)
        self._bytes: deque[bytes] = deque()
        self._error: BaseException | None = None
        self._abandoned = False
        self._thread = threading.Thread(target=self._run, name="parquet", daemon=True)
        self._thread.start()

    # --- for whoever asks for the parts ---
    def take(self, batch: RecordBatch | None) -> None:
        """None: there are no more. Raises what the library raised."""
        while self._thread.is_alive():
            try:
                return self._batches.put(batch, timeout=LOOK_AGAIN_S)
            except Full:
                continue
        raise self._error or RuntimeError("the writer of the Parquet file has ended too early")

    def given(self) -> bytes:
        """What was written since this was asked for."""
        return b"".join(self._bytes.popleft() for _ in range(len(self._bytes)))

    def end(self) -> bytes:
        self.take(None)
        self._thread.join()
        if self._error:
            raise self._error
        return self.given()

    def abandon(self) -> None:
        self._abandoned = True
        self._thread.join()

    # --- for the library, in the thread ---
    def _run(self) -> None:
        try:
            reader = RecordBatchReader.from_batches(SCHEMA, self._rest())
            file = cast(IO[bytes], self)  # as far as it is asked
            write_parquet(reader, file, compression="zstd(3)", max_row_group_size=ROWS_IN_GROUP)
        except BaseException as error:
            self._error = error

    def _rest(self) -> Iterator[RecordBatch]:
        while not self._abandoned:
            try:
                batch = self._batches.get(timeout=LOOK_AGAIN_S)
            except Empty:
                continue
            if batch is None:
                return
            yield batch

    def write(self, data: bytes) -> int:
        self._bytes.append(data)
        return len(data)

    def flush(self) -> None:
        """What is written is there."""

    def read(self, size: int = -1) -> bytes:
        raise OSError("this file is only written")

    def seek(self, offset: int, whence: int = 0) -> int:
        raise OSError("this file is only written in order")
