"""Every engine keeps its contract, and says and reads what its case file holds.

A new engine needs one file there, `engine_cases/<name>.py`; copy one. Each of its lists may be left out:

- LAUNCHES: {"engine": the recipe's section, "accelerated": bool, "argv": the command line, or None if nothing is
  started, "env": what must be in the environment, None for what must not}. PYTHON, ONHOST, MODEL, NAME and KEY stand
  for what the runner fills in; the port is 8000.
- CONTEXTS: (engine.args, tokens of the longest request or None)
- LOG_LINES: (a line of its log, LogSample or None)
- METRICS: (its metrics page, EngineSample or None)
- FAILURES: (the end of its log, a part of the cause); an advice must come with it
"""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import runners.engines
from recipes.errors import UsageError
from recipes.spec import Engine as EngineSpec
from recipes.spec import Recipe
from runners import registry
from runners.client import Endpoint
from runners.engine import Engine, EngineSample, LaunchRequest, LogSample, series_sums

CASES = Path(__file__).parent / "engine_cases"
KINDS = ("LAUNCHES", "CONTEXTS", "LOG_LINES", "METRICS", "FAILURES")
ENGINES = tuple(registry.installed().engines)
GARBAGE = (
    "",
    "\n\n",
    "Internal error\nthe end",
    "<html><body>502 Bad Gateway</body></html>",
    '{"detail": "Not Found"}',
    "# HELP a b\n# TYPE a counter\na{b= 1",
    "\x00\x1b[31m�" * 100,
)
ARGS = {"an_arg": 3, "on": True, "off": False, "none": None, "some": [1, "x", {"a": 1}], "more": {"b": [True, 0.5]}}
FLAGS = ["--an-arg", "3", "--on", "--no-off", "--some", "1", "x", '{"a": 1}', "--more", '{"b": [true, 0.5]}']


def engine_section(name: str, **fields: Any) -> EngineSpec:
    url = {} if fields.get("url") or name != "openai" else {"url": "http://127.0.0.1:8000/v1"}
    return EngineSpec.model_validate({"name": name, **url, **fields})


def launch_request(spec: EngineSpec, *, accelerated: bool = False, key: str = "KEY") -> LaunchRequest:
    return LaunchRequest(
        spec=spec,
        python="PYTHON",
        onhost=Path("ONHOST"),
        model_path="MODEL",
        served_name="NAME",
        port="8000",
        key=key,
        accelerated=accelerated,
    )


def check_contract(name: str, engine: Engine) -> None:
    """What holds for every engine."""
    assert engine.name == name
    assert engine.health_path.startswith("/")
    for version in ("0.1.0", engine.default_version or ""):
        page = engine.health_page(version)
        assert page.startswith("/")
        assert engine.health_url(Endpoint("http://host:1", "model", None), version).endswith(page)
    for args in engine.quantizations(engine.default_version or "").values():
        assert args.keys().isdisjoint(engine.reserved)
    assert engine.metrics_path is None or engine.metrics_path.startswith("/")
    assert all(re.compile(pattern) and advice for pattern, advice in engine.patterns)
    check_installation(engine)
    check_launch(name, engine)
    for text in GARBAGE:
        assert engine.metrics(text) is None
        assert engine.log_line(text) is None
        assert engine.failure(text).cause
        assert engine.failure(text).advice


def check_installation(engine: Engine) -> None:
    for accelerated in (False, True):
        installation = engine.installation("9.87.6", accelerated=accelerated)
        if installation is None:
            assert engine.default_version is None
            continue
        assert engine.default_version
        argvs = [*(step.argv for step in installation.steps), installation.check]
        assert all(isinstance(argv, tuple) and all(isinstance(part, str) for part in argv) for argv in argvs)
        assert any("9.87.6" in part for step in installation.steps for part in step.argv)
        assert installation.check


def check_launch(name: str, engine: Engine) -> None:
    key = "sk-nobody-may-see-it"
    launch = engine.launch(launch_request(engine_section(name, args=ARGS), key=key))
    if launch is None:
        assert engine.model_form == "none"
        return
    assert isinstance(launch.argv, tuple)
    assert all(isinstance(part, str) for part in [*launch.argv, *launch.env, *launch.env.values()])
    assert key not in " ".join(launch.argv)
    assert {"MODEL", "8000"} <= set(launch.argv)
    assert engine.served_name("MODEL", "NAME") in launch.argv
    if engine.asks_for_key:
        assert key in launch.env.values()
    else:
        everywhere = replace(launch_request(engine_section(name)), bind="0.0.0.0")
        assert engine.launch(everywhere) == engine.launch(launch_request(engine_section(name))), "loopback only"
    assert " ".join(FLAGS) in " ".join(launch.argv)


def read_cases(path: Path) -> list[tuple[str, Any]]:
    """Each case of a file with its kind."""
    found = {name: value for name, value in runpy.run_path(str(path)).items() if name.isupper() and name[0] != "_"}
    assert set(found) <= set(KINDS), f"{path.name} may hold {', '.join(KINDS)}"
    return [(kind, case) for kind, cases in found.items() for case in cases]


def check_case(engine: Engine, kind: str, case: Any) -> None:
    CHECKS[kind](engine, case)


def check_launch_case(engine: Engine, case: dict[str, Any]) -> None:
    spec = engine_section(engine.name, **case["engine"])
    launch = engine.launch(launch_request(spec, accelerated=case.get("accelerated", False)))
    if case["argv"] is None:
        assert launch is None
        return
    assert launch
    assert list(launch.argv) == shlex.split(case["argv"])
    assert {name: launch.env.get(name) for name in case.get("env", {})} == case.get("env", {})


def check_context_case(engine: Engine, case: tuple[dict[str, Any], int | None]) -> None:
    args, tokens = case
    spec = engine_section(engine.name, args=args).model_dump()
    recipe = {"name": "test", "model": {"builtin": "lead"}, "engine": spec, "workload": {"inputs": ["a.txt"]}}
    assert engine.context_tokens(Recipe.model_validate(recipe)) == tokens


def check_log_line_case(engine: Engine, case: tuple[str, LogSample | None]) -> None:
    line, sample = case
    assert engine.log_line(line) == sample
    # A line that is cut off or garbled is no reason to stop.
    engine.log_line(re.sub(r"\d+", ".", line))
    engine.log_line(line[: len(line) // 2])


def check_metrics_case(engine: Engine, case: tuple[str, EngineSample | None]) -> None:
    page, sample = case
    assert engine.metrics(page) == sample
    engine.metrics(re.sub(r"\d+", "e", page))
    engine.metrics(page[: len(page) // 2])


def check_failure_case(engine: Engine, case: tuple[str, str]) -> None:
    log, cause = case
    before = "INFO 11-21 03:06:31 starting\nWARNING: an error may follow\n"
    failure = engine.failure(before + log)
    assert cause in failure.cause
    assert "\n" not in failure.cause
    assert failure.advice
    assert failure.advice != engine.failure("anything else").advice, "none of its patterns matched"


CHECKS: dict[str, Callable[[Engine, Any], None]] = {
    "LAUNCHES": check_launch_case,
    "CONTEXTS": check_context_case,
    "LOG_LINES": check_log_line_case,
    "METRICS": check_metrics_case,
    "FAILURES": check_failure_case,
}


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_keeps_the_contract(name: str) -> None:
    check_contract(name, registry.engine(name))


@pytest.mark.parametrize(
    "name", [name for name in ENGINES if (Path(runners.engines.__path__[0]) / f"{name}.py").is_file()]
)
def test_an_engine_of_this_project_has_cases(name: str) -> None:
    assert read_cases(CASES / f"{name}.py")


ALL_CASES = [
    pytest.param(path.stem, kind, case, id=f"{path.stem}-{kind.lower()}-{i}")
    for path in sorted(CASES.glob("*.py"))
    for i, (kind, case) in enumerate(read_cases(path))
]


@pytest.mark.parametrize(("name", "kind", "case"), ALL_CASES)
def test_a_case_of_an_engine(name: str, kind: str, case: Any) -> None:
    check_case(registry.engine(name), kind, case)


# What the engines share


def test_series_are_summed_over_their_labels() -> None:
    page = 'a{x="1"} 1\na{x="2"} 2.5\nb 1e3\nb -1\nc NaN\nd +Inf 1700000000\n# e 5\nf none\n'
    sums = series_sums(page)
    assert (sums["a"], sums["b"], sums["d"]) == (3.5, 999.0, float("inf"))
    assert set(sums) == {"a", "b", "c", "d"}


def test_a_failure_that_is_not_known_is_the_last_line_that_speaks_of_an_error() -> None:
    engine = registry.engine("vllm")
    assert engine.failure("one\nValueError: two\nthree\n").cause == "ValueError: two"
    assert engine.failure("one\ntwo\n\n").cause == "two"
    assert engine.failure("").cause == "it wrote no log"


# A newcomer

TINY = """
from pathlib import Path

from runners.engine import Engine, EngineSample, Installation, Launch, Step, flags, series_sums


class Tiny(Engine):
    name = "tiny"
    default_version = "1.0"
    patterns = ((r"tiny is full.*", "choose a larger one"),)

    def installation(self, version, *, accelerated):
        return Installation((Step(("{env}/bin/python", "-m", "pip", "install", f"tiny=={version}")),), ("tiny",))

    def launch(self, request):
        argv = (request.python, "-m", "tiny", request.model_path, request.served_name, request.port)
        return Launch((*argv, *flags(request.spec.args)), {"TINY_KEY": request.key})

    def metrics(self, text):
        sums = series_sums(text)
        return EngineSample(running=sums["tiny_running"]) if "tiny_running" in sums else None


PLUGIN = Tiny()
"""
TINY_CASES = """
from runners.engine import EngineSample

LAUNCHES = [{"engine": {"args": {"fast": True}}, "argv": "PYTHON -m tiny MODEL NAME 8000 --fast"}]
METRICS = [("tiny_running 2", EngineSample(running=2))]
FAILURES = [("tiny is full of text", "tiny is full of text")]
"""


@pytest.fixture
def forgetful() -> Iterator[None]:
    """Afterwards the newcomer's modules are gone again."""
    yield
    for module in ("runners.engines.tiny", "tiny_engine"):
        sys.modules.pop(module, None)
    vars(runners.engines).pop("tiny", None)


def as_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a checkout: a further file beside the others."""
    (folder / "tiny.py").write_text(TINY, "utf-8")
    monkeypatch.setattr(runners.engines, "__path__", [*runners.engines.__path__, str(folder)])


def as_a_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another project installs it: a distribution with an entry point."""
    (folder / "tiny_engine.py").write_text(TINY, "utf-8")
    about = folder / "tiny_engine-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-engine\nVersion: 1.0\n", "utf-8")
    (about / "entry_points.txt").write_text("[gpu_recipe.engines]\ntiny = tiny_engine:PLUGIN\n", "utf-8")
    monkeypatch.syspath_prepend(folder)


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("install", [as_a_file, as_a_package])
def test_a_new_engine_is_one_file_and_its_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, install: Callable[[Path, pytest.MonkeyPatch], None]
) -> None:
    with pytest.raises(UsageError, match="tiny: no such plug-in"):
        registry.engine("tiny")
    install(tmp_path, monkeypatch)
    assert [*registry.installed().engines] == sorted([*ENGINES, "tiny"])
    engine = registry.engine("tiny")
    check_contract("tiny", engine)
    cases = tmp_path / "cases.py"
    cases.write_text(TINY_CASES, "utf-8")
    for kind, case in read_cases(cases):
        check_case(engine, kind, case)


def test_a_contract_that_is_not_kept_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = registry.engine("vllm")
    monkeypatch.setattr(engine, "log_line", lambda line: LogSample())
    with pytest.raises(AssertionError):
        check_contract("vllm", engine)
