"""What a drive's records may take of memory: a long run has more tokens than need be remembered one by one."""

from __future__ import annotations

from dataclasses import replace

from runners.records import RequestRecord

MOST_GAPS = 1_000_000
"""Inter-token latencies that are held in memory, at four bytes each; requests.jsonl has all of them."""


class Thinned:
    """Adds records to a list. Of more gaps than may be held every second is kept, then every fourth, and so on.

    The same share of each record's is kept, so that percentiles over all of them stay what they are.
    """

    def __init__(self, records: list[RequestRecord], most: int = MOST_GAPS) -> None:
        self._records, self._most = records, most
        self._held, self._every = 0, 1

    def add(self, record: RequestRecord) -> None:
        if self._every > 1:
            record = replace(record, itl_s=record.itl_s[:: self._every])
        self._records.append(record)
        self._held += len(record.itl_s)
        if self._held > self._most:
            self._every *= 2
            self._records[:] = [replace(one, itl_s=one.itl_s[::2]) for one in self._records]
            self._held = sum(len(one.itl_s) for one in self._records)
