"""The sampler as a process: what it says of this machine and of GPUs, how often, and what that costs."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from runners.onhost import sample_host
from runners.telemetry.host import GPU_SCRIPT, SCRIPT
from runners.telemetry.wire import Facts, Lost, Sample, Wire
from tests.emulators.nvml import Gpus, gpus

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="what a machine says is read from /proc"),
]

Said = Facts | Lost | Sample


class Sampling:
    """A sampler that runs, and what it has said so far."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process, self.said, self.bytes = process, list[Said](), list[int]()
        self._wire, self._new = Wire(), threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said = self._wire.read(line.rstrip())
            assert said is not None, line
            with self._new:
                self.said.append(said)
                self.bytes.append(len(line))
                self._new.notify_all()

    @property
    def samples(self) -> list[Sample]:
        return [said for said in self.said if isinstance(said, Sample)]

    def until(self, enough: Callable[[], object]) -> None:
        with self._new:
            assert self._new.wait_for(enough, 120), self.said

    def cpu_s(self) -> float:
        """By the scheduler's own count, in nanoseconds."""
        return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[0]) / 1e9


@contextmanager
def sampling(**env: str) -> Iterator[Sampling]:
    library = find_spec("pynvml")
    assert library is not None
    assert library.origin is not None
    argv = [sys.executable, "-IS", str(SCRIPT), str(GPU_SCRIPT), library.origin]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env={**os.environ, **env}) as process:
        try:
            yield Sampling(process)
        finally:
            process.kill()


@pytest.fixture
def double(tmp_path: Path) -> Gpus:
    return gpus(tmp_path / "nvml")


def test_a_machine_says_what_it_is_and_how_it_is() -> None:
    began = time.time()
    with sampling() as sampler:
        sampler.until(lambda: len(sampler.samples) >= 2 and any("cpu" in sample.values for sample in sampler.samples))
        facts = sampler.said[0]
        assert isinstance(facts, Facts)
        memory = psutil.virtual_memory()
        assert facts.facts["ram_total_mib"] <= memory.total / 2**20 + 1
        assert facts.facts["cpus"] <= (os.cpu_count() or 1)
        first, second = sampler.samples[:2]
    assert began - 1 <= first.at <= time.time()
    assert second.number > first.number
    assert all(0 <= sample.values["cpu"] <= 1 for sample in sampler.samples if "cpu" in sample.values)
    assert 0 < second.values["ram_used_mib"] < facts.facts["ram_total_mib"]
    assert second.values["load_1m"] >= 0
    for counter in ("net_received_bytes", "net_sent_bytes", "disk_read_bytes", "disk_written_bytes"):
        if counter in first.values:
            assert second.values[counter] >= first.values[counter]
    assert second.values["disk_free_mib"] > 0


def test_a_share_of_the_cpu_needs_two_looks_that_are_not_close(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(sample_host.time, "monotonic", lambda: now)
    machine = sample_host.Machine()
    assert "cpu" not in machine.sample(True)
    now += 1
    assert 0 <= machine.sample(False)["cpu"] <= 1
    now += 0.1
    assert "cpu" not in machine.sample(False)


def test_it_says_what_gpus_say(double: Gpus) -> None:
    with sampling(**double.environment(2)) as sampler:
        sampler.until(lambda: len(sampler.samples) >= 3)
        facts, samples = sampler.said[0], sampler.samples
    assert isinstance(facts, Facts)
    assert facts.facts["gpus"] == [
        {
            "index": index,
            "uuid": f"GPU-d0b1e000-0000-0000-0000-00000000000{index}",
            "name": "Double A100-SXM4-80GB",
            "memory_total_mib": 81920,
            "power_limit_w": 400,
        }
        for index in range(2)
    ]
    one, other = samples[1].values["gpus"]
    assert (one["index"], other["index"]) == (0, 1)
    assert (one["memory_used_mib"], other["memory_used_mib"]) == (1024, 2048)
    assert 0.9 <= one["utilization"] < 1
    assert (one["memory_utilization"], one["power_w"], one["sm_mhz"], one["memory_mhz"]) == (0.4, 300, 1410, 1593)
    assert [sample.values["gpus"][0]["energy_j"] for sample in samples[:3]] == [300, 600, 900]
    assert {tuple(sample.values["gpus"][0]["throttle"]) for sample in samples[:3]} == {(), ("sw_power_cap",)}


def test_a_lost_gpu_is_told_of_once_and_has_no_samples_any_more(double: Gpus) -> None:
    with sampling(**double.environment(2)) as sampler:
        sampler.until(lambda: sampler.samples)
        double.fault("lost 1")
        sampler.until(lambda: any(isinstance(said, Lost) for said in sampler.said))
        told = len(sampler.samples)
        sampler.until(lambda: len(sampler.samples) >= told + 2)
        lost = [said for said in sampler.said if isinstance(said, Lost)]
        indexes = [[gpu["index"] for gpu in sample.values["gpus"]] for sample in sampler.samples]
    assert [(said.gpu, said.uuid[-1], "lost" in said.why.lower()) for said in lost] == [(1, "1", True)]
    assert indexes[0] == [0, 1]
    assert indexes[told:][:2] == [[0], [0]]


def test_a_gpu_that_is_lost_when_sampling_begins_takes_no_other_away(double: Gpus) -> None:
    double.fault("lost 1", "foreign 3")
    with sampling(**double.environment(4)) as sampler:
        sampler.until(lambda: sampler.samples)
        facts, sample = sampler.said[0], sampler.samples[0]
        lost = [said for said in sampler.said if isinstance(said, Lost)]
    assert isinstance(facts, Facts)
    assert ([gpu["index"] for gpu in facts.facts["gpus"]], "gpus_unknown" in facts.facts) == ([0, 2], False)
    assert [gpu["index"] for gpu in sample.values["gpus"]] == [0, 2]
    assert [(said.gpu, said.why) for said in lost] == [(1, "GPU is lost")], "GPU 3 is somebody else's"


@pytest.mark.parametrize(("fault", "why"), [("lost 1", "GPU is lost"), ("unloaded", "Driver Not Loaded")])
def test_gpus_that_come_back_are_sampled_again(double: Gpus, fault: str, why: str) -> None:
    with sampling(**double.environment(2)) as sampler:
        sampler.until(lambda: sampler.samples)
        double.fault(fault)
        gone = {1} if fault == "lost 1" else {0, 1}
        sampler.until(lambda: gone == {said.gpu for said in sampler.said if isinstance(said, Lost)})
        double.fault()
        told = len(sampler.said)
        sampler.until(lambda: any(_indexes(said) == [0, 1] for said in sampler.said[told:]))
        lost = [said for said in sampler.said if isinstance(said, Lost)]
        whole = next(said for said in sampler.said[told:] if _indexes(said) == [0, 1])
    assert sorted((said.gpu, said.uuid[-1], said.why) for said in lost) == [(i, str(i), why) for i in sorted(gone)]
    assert isinstance(whole, Sample)
    assert [gpu["power_w"] for gpu in whole.values["gpus"]] == [300, 300]


def _indexes(said: Said) -> list[int] | None:
    """Of the GPUs that tell something in a sample."""
    if not isinstance(said, Sample) or "gpus" not in said.values:
        return None
    return [gpu["index"] for gpu in said.values["gpus"] if len(gpu) > 1]


def test_what_a_gpu_does_not_support_is_unknown_and_nothing_else(double: Gpus) -> None:
    double.fault("no-energy")
    with sampling(**double.environment(1)) as sampler:
        sampler.until(lambda: len(sampler.samples) >= 2)
        gpu = sampler.samples[1].values["gpus"][0]
    assert "energy_j" not in gpu
    assert gpu["power_w"] == 300


def test_a_driver_that_cannot_be_asked_is_named(tmp_path: Path, double: Gpus) -> None:
    """Its library is there, and lacks what is called."""
    empty = tmp_path / "empty.c"
    empty.write_text("int nothing;")
    library = double.folder / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(empty)], check=True)
    with sampling(**double.environment(1)) as sampler:
        sampler.until(lambda: sampler.samples)
        facts = sampler.said[0]
    assert isinstance(facts, Facts)
    assert facts.facts["gpus"] == []
    assert "NVML" in facts.facts["gpus_unknown"]


def test_samples_come_on_the_second_and_do_not_drift() -> None:
    """What keeps it off the CPU for a while costs the samples of that while, and moves no other."""
    with sampling() as sampler:
        sampler.until(lambda: _on_the_beat(sampler.samples))
        (beat,) = _on_the_beat(sampler.samples)
        psutil.Process(sampler.process.pid).suspend()
        time.sleep(2.6)
        psutil.Process(sampler.process.pid).resume()
        before = len(sampler.samples)
        sampler.until(lambda: _on_the_beat(sampler.samples[before:]))
        (beat_after,) = _on_the_beat(sampler.samples[before:])
        samples = sampler.samples
    assert max(b.at - a.at for a, b in pairwise(samples)) > 2.5
    assert all(b.number > a.number for a, b in pairwise(samples))
    assert beat_after == pytest.approx(beat, abs=0.2)


def _on_the_beat(samples: list[Sample]) -> list[float]:
    """By how much the newest two samples come after their number's second, if equally much; before that nothing.

    A machine that has much to do makes one or another late, each by as much as it happens to.
    """
    after = [sample.at - sample.number for sample in samples[-2:]]
    return after[:1] if len(after) == 2 and abs(after[1] - after[0]) < 0.1 else []


def test_a_clock_that_is_set_moves_no_sample(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As a machine does that learns the time after it was started."""
    real, slept = time.time, 0

    def sleep(_: float) -> None:
        nonlocal slept
        slept += 1
        monkeypatch.setattr(sample_host.time, "time", lambda: real() + 3600)
        if slept == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(sample_host.time, "sleep", sleep)
    began = real()
    with pytest.raises(KeyboardInterrupt):
        sample_host.main([])
    wire, out = Wire(), capfd.readouterr().out
    said = [wire.read(line.encode()) for line in out.splitlines()]
    assert [type(one) for one in said] == [Facts, Sample, Sample, Sample]
    assert all(one is not None and began - 1 <= one.at <= began + 60 for one in said)


@pytest.mark.parametrize("count", [0, 8])
def test_it_costs_less_than_a_hundredth_of_a_core(double: Gpus, count: int) -> None:
    """The usual sample: one or another takes long where others have the caches, or the core, meanwhile."""
    with sampling(**(double.environment(count) if count else {})) as sampler:
        used = []
        for told in range(1, 10):
            sampler.until(lambda told=told: len(sampler.samples) >= told)
            used.append((sampler.samples[told - 1].number, sampler.cpu_s()))
    assert statistics.median((b - a) / (m - n) for (n, a), (m, b) in pairwise(used)) < 0.01


def test_what_it_says_in_a_day_is_small(double: Gpus) -> None:
    with sampling(**double.environment(8)) as sampler:
        sampler.until(lambda: len(sampler.samples) >= 6)
        most = max(sampler.bytes[2:])
    assert most * 86_400 < 32e6, "with eight GPUs of which everything changes each second"


def test_a_machine_without_proc_says_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_host.Machine, "_read", lambda *_: b"")
    monkeypatch.setattr(sample_host, "_file", lambda _: None)
    machine = sample_host.Machine()
    machine._disks = set()
    known = {name for name, value in machine.sample(True).items() if value is not None}
    assert known == {"load_1m", "load_5m", "load_15m", "disk_used_mib", "disk_free_mib"}
    assert machine.facts()["hostname"]


def test_it_ends_when_nobody_can_hear_it() -> None:
    process = subprocess.Popen([sys.executable, "-IS", str(SCRIPT)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 0
