"""telemetry.jsonl: each row once, gaps marked, and never large, whatever happens to who writes it."""

from __future__ import annotations

import asyncio
import itertools
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runners.telemetry import TelemetryFile
from runners.telemetry import file as file_module
from runners.telemetry.rows import read_rows
from runners.telemetry.thinning import thinned

BEGIN = datetime(2026, 1, 2, tzinfo=UTC)
DAY_S = 86_400


def at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def busy(second: int, gpus: int = 0) -> dict[str, Any]:
    """A sample of which everything changes."""
    sample: dict[str, Any] = {
        "cpu": second % 100 / 100,
        "load_1m": 12.34,
        "load_5m": 12.34,
        "load_15m": 12.34,
        "ram_used_mib": 100_000 + second % 999,
        "disk_used_mib": 512_345,
        "disk_free_mib": 1_512_345,
        "disk_read_bytes": 10**12 + second * 12_345,
        "disk_written_bytes": 10**12 + second * 54_321,
        "net_received_bytes": 10**11 + second * 777,
        "net_sent_bytes": 10**10 + second * 333,
        "cpu_energy_j": second * 250.5,
    }
    if gpus:
        one = {"utilization": 0.97, "memory_utilization": 0.55, "memory_used_mib": 75_000, "power_w": 395.2}
        more = {"temperature_c": 66, "sm_mhz": 1410, "memory_mhz": 1593, "throttle": ["sw_power_cap"]}
        sample["gpus"] = [{"index": i, **one, "energy_j": 10**7 + second * 395, **more} for i in range(gpus)]
    return sample


ENGINE = {"output_tokens_total": 1.0, "prompt_tokens_total": 2.0, "running": 31.0, "waiting": 0.0, "kv_usage": 0.123456}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "telemetry.jsonl"


def of(path: Path, source: str) -> list[dict[str, Any]]:
    return [row for row in read_rows(path) if row["source"] == source]


def test_rows_are_as_readers_expect_them(path: Path) -> None:
    told: list[dict[str, Any]] = []
    file = TelemetryFile(path, told.append)
    file.machine(at(0), {"hostname": "h", "gpus": []})
    file.machine(at(5), {"hostname": "h", "gpus": []})
    file.host(at(0.5), 7, {"cpu": 0.25, "cpu_energy_j": None})
    file.engine(at(0.6), {**ENGINE, "swapped": None})
    file.lost(at(1), 3, "GPU-3", "GPU is lost")
    file.lost(at(2), 3, "GPU-3", "GPU is lost")
    file.close()
    rows = list(read_rows(path))
    assert rows == told
    assert rows == [
        {"at": "2026-01-02T00:00:00.000+00:00", "source": "machine", "hostname": "h", "gpus": []},
        {"at": "2026-01-02T00:00:00.500+00:00", "source": "host", "n": 7, "cpu": 0.25},
        {
            "at": "2026-01-02T00:00:00.600+00:00",
            "source": "engine",
            "output_tokens_total": 1,
            "prompt_tokens_total": 2,
            "running": 31,
            "waiting": 0,
            "kv_usage": 0.1235,
        },
        {"at": "2026-01-02T00:00:01.000+00:00", "source": "lost", "gpu": 3, "uuid": "GPU-3", "why": "GPU is lost"},
    ]


def test_samples_that_are_missing_are_marked_at_the_end_of_the_gap(path: Path) -> None:
    file = TelemetryFile(path)
    for second in (0, 1, 2, 4.4, 10):
        file.host(at(second), int(second), {})
    (gap,) = of(path, "gap")
    assert (gap["of"], gap["seconds"], gap["at"]) == ("host", 5.6, "2026-01-02T00:00:10.000+00:00")
    assert gap["why"]
    file.unsampled(at(11), at(0), "it ended")
    assert len(of(path, "gap")) == 1, "a moment ago is no gap"
    file.unsampled(at(20), at(0), "it ended")
    assert [(gap["seconds"], gap["why"]) for gap in of(path, "gap")[1:]] == [(10, "it ended")]
    row = file.figures.row()
    assert row is not None
    assert [gap["seconds"] for gap in row["gaps"]] == [5.6, 10]


def test_what_another_client_wrote_is_gone_on_with_and_no_sample_is_there_twice(path: Path) -> None:
    first = TelemetryFile(path)
    first.machine(at(0), {"hostname": "h"})
    for n in range(5):
        first.host(at(n), n, {"cpu": 0.5})
        first.engine(at(n), ENGINE)
    first.lost(at(4), 0, "GPU-0", "lost")
    with path.open("a") as torn:
        torn.write('{"at":"2026-01-02T00:00:05.000+00:00","source":"host","n":5,"cp')
    second = TelemetryFile(path)
    second.machine(at(0), {"hostname": "h"})
    for n in range(8):
        second.host(at(n), n, {"cpu": 0.5})
        row = {"at": at(n).isoformat()}
        assert second.told_before(row) == (n < 5)
    second.lost(at(4), 0, "GPU-0", "lost")
    assert [row["n"] for row in of(path, "host")] == list(range(8))
    assert [len(of(path, source)) for source in ("machine", "engine", "lost", "gap")] == [1, 5, 1, 0]
    row = second.figures.row()
    assert row is not None
    assert (row["samples"]["host"], row["samples"]["engine"]) == (8, 5), "the figures are those of the whole run"


def test_a_day_of_eight_gpus_and_an_engine_is_small_and_says_how_it_went(path: Path) -> None:
    file = TelemetryFile(path)
    file.machine(at(0), {"hostname": "h", "gpus": [{"index": i, "uuid": f"GPU-{i}"} for i in range(8)]})
    largest = 0
    for second in range(DAY_S):
        if second == 40_000:
            file.lost(at(second), 7, "GPU-7", "lost")
        if 50_000 <= second < 50_100:
            continue
        file.host(at(second), second, busy(second, 8 if second < 40_000 else 7))
        file.engine(at(second + 0.3), ENGINE)
        if second % 600 == 0:
            largest = max(largest, path.stat().st_size)
    file.close()
    assert max(largest, path.stat().st_size) < 20e6
    assert [len(of(path, source)) for source in ("machine", "gap", "lost")] == [1, 1, 1]
    seconds = [(datetime.fromisoformat(row["at"]) - BEGIN).total_seconds() for row in of(path, "host")]
    apart = [b - a for a, b in itertools.pairwise(seconds)]
    assert seconds[0] == 0
    assert seconds[-1] == DAY_S - 1
    assert set(apart[-800:]) == {1.0}, "the last quarter of an hour is whole"
    assert sorted(apart)[-2] <= 32, "and what lies before is equally dense everywhere"
    row = file.figures.row()
    assert row is not None
    assert row["samples"]["host"] == DAY_S - 100, "the figures are of all that was sampled"
    assert row["gpus"][7]["lost_at"] == "2026-01-02T11:06:40.000+00:00"
    kwh = file.figures.energy()
    assert kwh is not None
    assert kwh.gpu_wh == pytest.approx((7 * (DAY_S - 1) + 39_999) * 395 / 3600, rel=0.001)


def test_thinning_a_thinned_file_further_is_thinning_it_at_once(path: Path) -> None:
    file = TelemetryFile(path)
    for second in range(5000):
        file.host(at(second + 0.1), second, {})
        file.engine(at(second + 0.7), ENGINE)
    lines = path.read_bytes().splitlines(keepends=True)
    assert list(thinned(thinned(lines, 2), 8)) == list(thinned(lines, 8))
    assert len(list(thinned(lines, 8))) == pytest.approx(2 * (900 + 4100 / 8), abs=8)


def test_rows_that_come_while_the_file_is_made_smaller_are_in_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = file_module.thinned_copy

    async def main() -> None:
        copied, go_on = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def slowly(*given: Any, **how: Any) -> None:
            usual(*given, **how)
            loop.call_soon_threadsafe(copied.set)
            asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(30)

        monkeypatch.setattr(file_module, "thinned_copy", slowly)
        file = TelemetryFile(path, limit_bytes=100_000)
        n = 0
        while not file._thinning:
            file.host(at(n * 60), n, busy(n))
            n += 1
        await copied.wait()
        before = path.stat().st_size
        for late in range(n, n + 50):
            file.host(at(late * 60), late, busy(late))
        assert path.stat().st_size > before, "who dies now has lost nothing"
        go_on.set()
        while file._thinning:
            await asyncio.sleep(0.01)
        assert path.stat().st_size < before
        assert [row["n"] for row in of(path, "host")][-51:] == list(range(n - 1, n + 50))
        file.host(at((n + 50) * 60), n + 50, busy(n))
        file.close()
        assert of(path, "host")[-1]["n"] == n + 50

    asyncio.run(main())
    assert not path.with_name("telemetry.jsonl.part").exists()


def test_what_a_client_left_half_made_smaller_is_forgotten(path: Path) -> None:
    part = path.with_name("telemetry.jsonl.part")
    part.write_text("half")
    TelemetryFile(path).close()
    assert not part.exists()


def test_a_disk_that_takes_nothing_costs_the_rows_and_nothing_else(path: Path) -> None:
    path.symlink_to("/dev/full")
    told: list[dict[str, Any]] = []
    file = TelemetryFile(path, told.append, limit_bytes=10)
    for n in range(3):
        file.host(at(n), n, {"cpu": 0.5})
    file.close()
    assert len(told) == 3
    row = file.figures.row()
    assert row is not None
    assert row["cpu"] == {"mean": 0.5, "max": 0.5}


def test_a_row_after_one_that_was_cut_off_is_whole(path: Path) -> None:
    path.write_bytes(b'{"at":"2026-01-02T00:00:00.000+00:00","source":"ho')
    file = TelemetryFile(path)
    file.host(at(1), 1, {})
    assert json.loads(path.read_bytes().splitlines()[-1])["n"] == 1
    assert [row["n"] for row in read_rows(path)] == [1]


def test_a_file_that_is_not_there_has_no_rows(path: Path) -> None:
    assert list(read_rows(path)) == []


def test_a_gpu_that_is_back_has_a_row_and_people_are_told(path: Path) -> None:
    warned: list[str] = []
    file = TelemetryFile(path, warn=warned.append)
    both = [{"index": 0}, {"index": 1}]
    file.machine(at(0), {"gpus": [{"index": 1, "uuid": "GPU-1"}]})
    file.host(at(1), 1, {"gpus": both})
    file.lost(at(2), 1, "", "GPU is lost")
    file.host(at(2), 2, {"gpus": both[:1]})
    file.host(at(5), 5, {"gpus": both})
    assert [(row["gpu"], row["uuid"], row["at"]) for row in of(path, "back")] == [
        (1, "GPU-1", at(5).isoformat(timespec="milliseconds"))
    ]
    assert warned == [
        "GPU 1 (GPU-1) was lost at 00:00:02 UTC: GPU is lost",
        "GPU 1 is back: it was lost for 3 s, and is sampled again",
    ]
    (gpu,) = [gpu for gpu in (file.figures.row() or {})["gpus"] if gpu["index"] == 1]
    assert (gpu["lost_at"], gpu["back_at"]) == (of(path, "lost")[0]["at"], of(path, "back")[0]["at"])
    again = TelemetryFile(path)
    again.lost(at(2), 1, "", "GPU is lost")
    assert len(of(path, "lost")) == 1, "heard once more from the beginning"


def test_a_gpu_that_goes_and_comes_is_not_told_of_for_ever(path: Path) -> None:
    warned: list[str] = []
    file = TelemetryFile(path, warn=warned.append)
    for n in range(0, 100, 2):
        file.lost(at(n), 0, "GPU-0", "GPU is lost")
        file.host(at(n), n, {"gpus": []})
        file.host(at(n + 1), n + 1, {"gpus": [{"index": 0}]})
    assert len(of(path, "lost")) == len(of(path, "back")) == 50
    assert len(warned) <= 7
    assert warned[-1] == "GPU 0 goes on being lost and coming back; telemetry.jsonl has each time"


def test_a_driver_that_cannot_be_asked_is_a_warning_once(path: Path) -> None:
    warned: list[str] = []
    file = TelemetryFile(path, warn=warned.append)
    file.machine(at(0), {"gpus": [], "gpus_unknown": "Driver Not Loaded"})
    file.machine(at(9), {"gpus": [], "gpus_unknown": "Driver Not Loaded", "cpus": 2})
    assert warned == ["NVIDIA's driver is there but could not be asked, so GPUs are not sampled: Driver Not Loaded"]
