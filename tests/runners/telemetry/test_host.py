"""The sampler of a run's machine: here, over SSH, joined by another client, and when it fails."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from provisioners.contract import Host, Output
from recipes.errors import NoMachine
from runners.run_folder import RunFolder
from runners.telemetry import TelemetryFile
from runners.telemetry import host as host_module
from runners.telemetry.file import _UNSAMPLED as UNSAMPLED
from runners.telemetry.host import SCRIPT, HostSampler
from runners.telemetry.rows import read_rows
from tests.conftest import Command
from tests.emulators.nvml import gpus
from tests.emulators.slots import slots_double
from tests.provisioners.ssh_hosts import Machine, machine

T0 = 1_767_312_000.0
FACTS = {"facts": {"hostname": "far", "gpus": []}, "at": T0, "fields": ["cpu"], "gpu_fields": []}


@dataclass
class ProcessDouble:
    ended: asyncio.Future[int]
    pid: int = 1

    async def wait(self) -> int:
        return await asyncio.shield(self.ended)

    async def catch_up(self) -> None:
        pass


@dataclass
class Far:
    """A machine whose clock is ahead, and whose sampler says what the test wants."""

    blocks: Sequence[bytes] = ()
    status: int | None = None
    trouble: Exception | None = None
    clock_offset_s: float = 100.0
    python: str = "python"
    started: list[tuple[str, list[str]]] = field(default_factory=list)

    async def provide(self, path: Path) -> Path:
        return Path("/there") / path.name

    async def start(
        self, name: str, argv: Sequence[str], *, env: Mapping[str, str], on_output: Output, counts: bool = False
    ) -> ProcessDouble:
        self.started.append((name, list(argv)))
        if self.trouble is not None:
            raise self.trouble
        for block in self.blocks:
            on_output(block)
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if self.status is not None:
            ended.set_result(self.status)
        return ProcessDouble(ended)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "r")


@pytest.fixture(autouse=True)
def at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "_WORTH_IT_S", 0.0)


def heard(
    folder: RunFolder, far: Far, *, later_s: float = 0.0, warn: Callable[[str], None] = lambda _: None
) -> list[dict[str, Any]]:
    """What one client writes of such a machine."""

    async def main() -> None:
        file = TelemetryFile(folder.path / "telemetry.jsonl", warn=warn)
        sampler = HostSampler(file)
        host = cast(Host, far)
        sampler.begin(host, folder)
        sampler._began -= timedelta(seconds=later_s)
        for _ in range(5):
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        await sampler.catch_up()
        await sampler.finish()
        file.close()

    asyncio.run(main())
    return list(read_rows(folder.path / "telemetry.jsonl"))


def lines(*numbers: int) -> bytes:
    return b"".join(f"{n},{T0 + n},0.5\n".encode() for n in numbers)


def test_samples_are_on_the_runs_clock(folder: RunFolder) -> None:
    begin = json.dumps(FACTS).encode() + b"\n"
    rows = heard(folder, Far([begin[:20], begin[20:] + lines(1)[:4], lines(1)[4:] + lines(2)]))
    assert [(row["source"], datetime.fromisoformat(row["at"]).timestamp()) for row in rows[:3]] == [
        ("machine", T0 - 100),
        ("host", T0 - 99),
        ("host", T0 - 98),
    ]


def test_another_client_measures_another_offset_and_uses_the_first(folder: RunFolder) -> None:
    begin = json.dumps(FACTS).encode() + b"\n"
    heard(folder, Far([begin + lines(1, 2)]))
    rows = heard(folder, Far([begin + lines(1, 2, 3)], clock_offset_s=102.0))
    hosts = [row for row in rows if row["source"] == "host"]
    assert [row["n"] for row in hosts] == [1, 2, 3]
    assert [datetime.fromisoformat(row["at"]).timestamp() for row in hosts] == [T0 - 99, T0 - 98, T0 - 97]


@pytest.fixture
def clock_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is missing up to now, which else depends on how quick this machine is."""
    at = datetime.now(UTC)

    class Standing(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return at

    monkeypatch.setattr(host_module, "datetime", Standing)


@pytest.mark.usefixtures("clock_stands")
@pytest.mark.parametrize(
    ("far", "why"),
    [
        (Far([b"Traceback\nMemoryError\n"], status=1), "the sampler ended with status 1: MemoryError"),
        (Far(trouble=OSError("no room")), "the machine could not be sampled: no room"),
        (Far(), "the machine could not be heard"),
    ],
)
def test_a_sampler_that_fails_leaves_a_gap_with_the_reason(folder: RunFolder, far: Far, why: str) -> None:
    (row,) = heard(folder, far, later_s=10)
    assert (row["source"], row["of"], row["why"], row["seconds"]) == ("gap", "host", why, 10)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "_PAUSES_S", (0.0, 0.0))


@pytest.mark.usefixtures("no_pauses")
def test_a_sampler_that_ends_is_started_anew_a_few_times(folder: RunFolder) -> None:
    """Under another name each time, since a name that was started before is joined; also by the next client."""
    begin = json.dumps(FACTS).encode() + b"\n"
    far, warned = Far([begin + lines(1, 2)], status=1), list[str]()
    heard(folder, far, warn=warned.append)
    assert [name for name, _ in far.started] == ["telemetry", "telemetry-2", "telemetry-3"]
    ended = "the sampler ended with status 1"
    again = f"{ended}; it is tried again in 0 s, and what is missing is a gap"
    assert warned == [again, again, f"{ended}; it was tried 3 times, and there are no samples more"]
    later = Far([begin + lines(3)])
    rows = heard(folder, later)
    assert [name for name, _ in later.started] == ["telemetry-4"]
    assert [row["n"] for row in rows if row["source"] == "host"] == [1, 2, 3]


@pytest.mark.usefixtures("no_pauses", "clock_stands")
def test_a_gap_is_marked_while_the_run_goes_on(folder: RunFolder) -> None:
    """In pieces, if the sampler fails again and again, which together are all of it."""

    async def main() -> list[dict[str, Any]]:
        sampler = HostSampler(TelemetryFile(folder.path / "telemetry.jsonl"))
        sampler.begin(cast(Host, Far(status=1)), folder)
        sampler._began -= timedelta(seconds=10)
        assert sampler._task is not None
        await asyncio.wait([sampler._task])
        rows = list(read_rows(folder.path / "telemetry.jsonl"))
        await sampler.finish()
        return rows

    (gap,) = asyncio.run(main())
    assert (gap["source"], gap["why"], gap["seconds"]) == ("gap", "the sampler ended with status 1", 10)


def test_a_machine_that_is_gone_is_not_sampled_anew(folder: RunFolder) -> None:
    """The run itself tells of that."""
    far, warned = Far(trouble=NoMachine("taken away")), list[str]()
    heard(folder, far, warn=warned.append)
    assert (len(far.started), warned) == (1, [])


def test_another_client_is_warned_of_what_the_first_was(folder: RunFolder) -> None:
    begin = json.dumps(FACTS).encode() + b"\n"
    lost = json.dumps({"lost": 1, "at": T0 + 2, "uuid": "GPU-1", "why": "GPU is lost"}).encode() + b"\n"
    said, first, second = begin + lines(1) + lost + lines(2, 3), list[str](), list[str]()
    heard(folder, Far([said]), warn=first.append)
    rows = heard(folder, Far([said]), warn=second.append)
    assert first == second == ["GPU 1 (GPU-1) was lost at 23:58:22 UTC: GPU is lost"]
    assert [row["source"] for row in rows].count("lost") == 1


def test_a_run_that_was_over_before_it_began_has_no_gap(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "_WORTH_IT_S", 60.0)
    far = Far()
    assert heard(folder, far) == []
    assert far.started == []


def samplers(name: str) -> list[psutil.Process]:
    """The samplers that run for a home or a machine whose folder is in their environment or arguments."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if any(word.endswith(SCRIPT.name) for word in words) and name in f"{process.environ()} {process.cwd()}":
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def work(recipe: Command, tmp_path: Path) -> Iterator[Callable[..., list[str]]]:
    """Writes a recipe that takes about six seconds, or `times` as many, and returns the command that runs it."""
    how = ("--slots", "4", "--ttft", "0.2", "--per-token", "0.01", "--tokens", "20", "--metrics", "vllm")
    with slots_double(*how) as engine:

        def write(times: int = 1, **resources: Any) -> list[str]:
            for name in "abcdef":
                sentences = (f"Sentence {i} of {name} says what it says." for i in range(90 * times))
                (tmp_path / f"{name}.txt").write_text(" ".join(sentences))
            workload = {
                "inputs": [str(tmp_path / "?.txt")],
                "tokenizer": str(SCRIPT.parents[2] / "recipes" / "models" / "lead" / "tokenizer.json"),
                "chunk_size": 300,
                "chunk_overlap": 0,
                "max_tokens": 32,
                "temperature": 0,
                "concurrency": 4,
            }
            told = {
                "name": "sampled",
                "resources": resources or {"provisioner": "local"},
                "engine": {"name": "openai", "url": f"{engine.url}/v1"},
                "model": {"served_name": "double"},
                "workload": workload,
            }
            (tmp_path / "sampled.yaml").write_text(json.dumps(told))
            return ["up", str(tmp_path / "sampled.yaml")]

        yield write


def check_series(folder: RunFolder, *, least: int = 3) -> None:
    """One sample a second, each once, within the run."""
    rows, result = list(read_rows(folder.path / "telemetry.jsonl")), folder.read_result()
    hosts = [row for row in rows if row["source"] == "host"]
    assert len(hosts) >= least
    check_numbers(hosts)
    # The machine's clock is this one's; what was measured between them is how long asking took.
    doubt = timedelta(seconds=abs((folder.read_json("clock.json") or {"offset_s": 0})["offset_s"]))
    began, ended = (datetime.fromisoformat(result[name]) for name in ("started_at", "ended_at"))
    for row in rows:
        assert began - doubt <= datetime.fromisoformat(row["at"]) <= ended + doubt


def check_numbers(hosts: list[dict[str, Any]]) -> None:
    """They grow by one. A sampler that was kept waiting leaves numbers out, and is late with the next one as well;
    if one is lost on its way, the next is as punctual as ever.
    """
    after = [datetime.fromisoformat(row["at"]).timestamp() - row["n"] for row in hosts]
    for i, (one, next_) in enumerate(pairwise(hosts), 1):
        assert next_["n"] > one["n"]
        assert next_["n"] == one["n"] + 1 or after[i] - min(after) > 0.005, (one["n"], next_["n"])


@pytest.mark.real
def test_a_run_here_samples_this_machine(recipe: Command, work: Callable[..., list[str]], tmp_path: Path) -> None:
    double = gpus(tmp_path / "nvml")
    ended = recipe(*work(), env=double.environment(2))
    assert ended.returncode == 0, ended.stderr
    folder = RunFolder(recipe.run_folder())
    check_series(folder)
    rows, telemetry = list(read_rows(folder.path / "telemetry.jsonl")), folder.read_result()["telemetry"]
    assert {row["source"] for row in rows} - {"gap"} == {"machine", "host", "engine"}
    # A machine with much to do keeps a process waiting so long; nothing else may be missing.
    late = {UNSAMPLED, "the machine could not be heard", "the metrics page took long to answer"}
    assert {gap["why"] for gap in telemetry["gaps"]} <= late
    assert telemetry["samples"]["host"] == sum(row["source"] == "host" for row in rows)
    assert [(gpu["index"], gpu["power_w"]["mean"], gpu["lost_at"]) for gpu in telemetry["gpus"]] == [
        (0, 300, None),
        (1, 300, None),
    ]
    assert telemetry["gpus"][0]["energy_wh"] > 0
    assert samplers(str(recipe.home)) == []


@pytest.mark.real
def test_a_lost_gpu_is_a_warning_of_the_run(recipe: Command, work: Callable[..., list[str]], tmp_path: Path) -> None:
    """While it goes on, at its end, and whenever somebody looks at it."""
    double = gpus(tmp_path / "nvml")
    double.fault("lost 1")
    ended = recipe(*work(), env=double.environment(2))
    assert ended.returncode == 0, ended.stderr
    folder = recipe.run_folder()
    (warning,) = json.loads((folder / "result.json").read_text())["warnings"]
    assert warning.startswith("GPU 1 was lost at ")
    assert warning.endswith(" UTC: GPU is lost")
    (event,) = [row for row in map(json.loads, (folder / "events.jsonl").open()) if row["event"] == "warned"]
    assert event["message"] == warning
    assert warning in ended.stderr
    assert warning in recipe("report", folder.name).stdout


@pytest.mark.real
def test_a_sampler_that_is_killed_does_not_end_the_run(
    recipe: Command, work: Callable[..., list[str]], wait_until: Callable[..., Any]
) -> None:
    running = recipe.start(*work(times=2))
    found = wait_until(lambda: samplers(str(recipe.home)), what="a sampler")
    found[0].kill()
    out, err = running.communicate(timeout=200)
    assert running.returncode == 0, out + err
    folder = recipe.run_folder()
    rows, result = list(read_rows(folder / "telemetry.jsonl")), json.loads((folder / "result.json").read_text())
    why = f"the sampler ended with status -{int(signal.SIGKILL)}"
    gaps = [row for row in rows if row["source"] == "gap" and row["why"] == why]
    assert {gap["of"] for gap in gaps} == {"host"}
    assert [row for row in rows[rows.index(gaps[-1]) :] if row["source"] == "host"], "it was started again"
    told = [gap["seconds"] for gap in result["telemetry"]["gaps"] if gap["why"] == why]
    assert told == [gap["seconds"] for gap in gaps]
    (warning,) = result["warnings"]
    assert warning == f"{why}; it is tried again in 2 s, and what is missing is a gap"
    assert warning in err


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Machine]:
    tools = Path(sys.executable).parent
    with machine(tmp_path / "far", PATH=f"{tools}:/usr/bin:/bin", XDG_CACHE_HOME=str(tmp_path / "cache")) as made:
        yield made


@pytest.mark.real
def test_a_machine_over_ssh_is_sampled_and_left_as_it_was(
    recipe: Command, work: Callable[..., list[str]], far: Machine
) -> None:
    ended = recipe(*work(provisioner="ssh", hosts=[far.address], ssh_key=str(far.sshd.key)))
    assert ended.returncode == 0, ended.stderr
    check_series(RunFolder(recipe.run_folder()))
    assert far.is_as_found()
    assert samplers(str(far.sshd.home)) == []


@pytest.mark.real
def test_a_client_that_takes_over_goes_on_with_the_series(
    recipe: Command, work: Callable[..., list[str]], far: Machine, wait_until: Callable[..., Any]
) -> None:
    """What was sampled while nobody was there comes home as well."""
    running = recipe.start(*work(times=2, provisioner="ssh", hosts=[far.address], ssh_key=str(far.sshd.key)))

    def told() -> list[int]:
        if not recipe.run_folders():
            return []
        rows = read_rows(recipe.run_folder() / "telemetry.jsonl")
        return [row["n"] for row in rows if row["source"] == "host"]

    wait_until(lambda: len(told()) >= 2, what="samples")
    running.kill()
    running.communicate()
    before = told()
    (sampler,) = samplers(str(far.sshd.home))
    attached = recipe("attach", recipe.run_folder().name)
    assert attached.returncode == 0, attached.stderr
    check_series(RunFolder(recipe.run_folder()), least=len(before) + 2)
    rows = list(read_rows(recipe.run_folder() / "telemetry.jsonl"))
    assert [row["source"] for row in rows].count("machine") == 1
    assert not sampler.is_running()
    assert far.is_as_found()


@pytest.mark.real
def test_a_client_that_takes_over_hears_the_sampler_that_was_started_last(
    recipe: Command, work: Callable[..., list[str]], far: Machine, wait_until: Callable[..., Any]
) -> None:
    """The first one has ended; what the second said while nobody was there is no gap."""
    running = recipe.start(*work(times=2, provisioner="ssh", hosts=[far.address], ssh_key=str(far.sshd.key)))

    def rows() -> list[dict[str, Any]]:
        return list(read_rows(recipe.run_folder() / "telemetry.jsonl")) if recipe.run_folders() else []

    def gaps() -> list[dict[str, Any]]:
        return [row for row in rows() if row["source"] == "gap" and "the sampler ended with status" in row["why"]]

    def again() -> list[dict[str, Any]]:
        return [row for row in rows() if row["source"] == "host" and gaps() and row["at"] >= gaps()[-1]["at"]]

    wait_until(lambda: any(row["source"] == "host" for row in rows()), what="a sample")
    samplers(str(far.sshd.home))[0].kill()
    wait_until(again, what="samples of the second one")
    before = gaps()
    running.kill()
    running.communicate()
    attached = recipe("attach", recipe.run_folder().name)
    assert attached.returncode == 0, attached.stderr
    assert gaps() == before, "nothing was missing since then"
    assert {gap["of"] for gap in before} == {"host"}
    check_numbers(again())
    assert len(again()) >= 2
    assert far.is_as_found()
