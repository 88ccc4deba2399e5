"""A recipe file, whole: what it means, and everything that can be wrong with its fields, at once and in its place."""

from __future__ import annotations

import contextlib
import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recipes import catalogue
from recipes.errors import InvalidRecipe
from recipes.load import load, load_all
from recipes.spec import Recipe
from recipes.units import Accelerators, Amount
from tests.recipes.conftest import MINIMAL, PLUGINS, Folder

EVERY_FIELD = """\
name: 2xA100-airoboros-70b
resources:
  provisioner: runpod
  accelerators: A100-80GB:2        # NAME:COUNT
  any_of: [{accelerators: H100-80GB:2}, {accelerators: A100-80GB:4}]   # fallbacks, in order
  cloud: secure
  image: runpod/pytorch:2.0.1-py3.10-cuda11.8.0-devel-ubuntu22.04
  cpus: 16+
  memory: 128GB+
  disk_size: 20GB
  volumes: [{size: 200GB, path: /workspace}]
  use_spot: false
env: {}
secrets: [HF_TOKEN]
model: {repo: jondurbin/airoboros-l2-70b-3.1.2, revision: main, path: /workspace}
engine:
  name: vllm
  version: 0.33.0
  tensor_parallel_size: 2
  args: {max_model_len: 4096, gpu_memory_utilization: 0.9}
workload:
  name: summarize
  inputs: [texts/*.txt]
  prompt: prompts/airoboros-extended-130.yaml
  chunk_size: 3000
  chunk_overlap: 512
  max_tokens: 1000
  temperature: 0.2
  concurrency: 20
limits: {max_cost: 10, max_price: 5, max_duration: 3h, idle_duration: 10m}
collect: [nohup.out]
"""


@pytest.fixture
def whole(here: Folder) -> Recipe:
    here.write("Once upon a time.", "texts/a.txt")
    here.write("prompt_template: |\n  Sum up: {{ prompt }}\n", "prompts/airoboros-extended-130.yaml")
    return here.run(EVERY_FIELD).recipe


def test_every_field_arrives_in_its_unit(whole: Recipe, here: Folder) -> None:
    machine, work, limits = whole.resources, whole.workload, whole.limits
    assert machine.accelerators == Accelerators("A100-80GB", 2)
    assert [str(fallback.accelerators) for fallback in machine.any_of] == ["H100-80GB:2", "A100-80GB:4"]
    assert (machine.provisioner, machine.cloud, machine.use_spot) == ("runpod", "secure", False)
    assert machine.image == "runpod/pytorch:2.0.1-py3.10-cuda11.8.0-devel-ubuntu22.04"
    assert (machine.cpus, machine.memory) == (Amount(16, or_more=True), Amount(128 * 10**9, or_more=True))
    assert (machine.disk_size, machine.volumes[0].size) == (20 * 10**9, 200 * 10**9)
    assert whole.model.path == machine.volumes[0].path == "/workspace"
    assert (whole.model.identifier, whole.model.revision) == ("jondurbin/airoboros-l2-70b-3.1.2", "main")
    assert (whole.engine.name, whole.engine.version, whole.engine.tensor_parallel_size) == ("vllm", "0.33.0", 2)
    assert whole.engine.args == {"max_model_len": 4096, "gpu_memory_utilization": 0.9}
    assert (work.inputs, work.prompt) == (
        (str(here.path / "texts/*.txt"),),
        str(here.path / "prompts/airoboros-extended-130.yaml"),
    )
    assert (work.chunk_size, work.chunk_overlap, work.max_tokens) == (3000, 512, 1000)
    assert (work.temperature, work.concurrency) == (0.2, 20)
    assert (limits.max_cost, limits.max_price, limits.max_duration, limits.idle_duration) == (10, 5, 10800, 600)
    assert (whole.secrets, whole.collect, whole.env) == (("HF_TOKEN",), ("nohup.out",), {})


def test_what_a_recipe_resolves_to_is_a_recipe_file_that_means_the_same(whole: Recipe, here: Folder) -> None:
    assert whole.resolved()["limits"]["max_duration"] == "3h"
    assert here.run(yaml.safe_dump(whole.resolved(), sort_keys=False)).recipe == whole


def test_a_short_recipe_gets_every_default(here: Folder) -> None:
    recipe = here.run(MINIMAL).recipe
    assert (recipe.resources.provisioner, recipe.engine.name, recipe.workload.name) == (
        "local",
        "llamacpp",
        "summarize",
    )
    assert (recipe.workload.chunk_size, recipe.limits.max_cost) == (3000, None)


def test_a_recipe_without_a_name_is_called_like_its_file(here: Folder) -> None:
    here.write(MINIMAL.replace("name: mine\n", ""), "Mein Rezept (2).yaml")
    assert here.load("Mein Rezept (2).yaml")[0].recipe.name == "Mein-Rezept-2"


@pytest.mark.parametrize("text", [MINIMAL.replace("\n", "\r\n"), "\ufeff" + MINIMAL, MINIMAL + "\n\n...\n"])
def test_line_ends_and_byte_order_marks_do_not_matter(here: Folder, text: str) -> None:
    assert here.run(text).recipe == here.run(MINIMAL).recipe


def test_every_problem_is_reported_at_once_in_its_place(here: Folder) -> None:
    text = """\
name: my recipe
resources:
  acelerators: A100:2
  disk_size: 20QB
  cloud: secret
  provisioner: runpood
engine: {nmae: vllm, tensor_parallel_size: 0}
workload:
  inputs: []
  prompt: p.txt
  temperature: hot
limits: {max_cost: -1, max_duration: 3 hours}
"""
    here.write("no place for the text", "p.txt")
    assert [re.sub(r"(\S*/)?p\.txt", "p.txt", problem) for problem in here.problems(text)] == [
        "mine.yaml:1:7 name: 'my recipe' does not match ^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$",
        "mine.yaml:3:3 resources.acelerators: unknown key; did you mean accelerators?",
        "mine.yaml:4:14 resources.disk_size: 20QB: not a size; write 20GB or 18GiB",
        "mine.yaml:5:10 resources.cloud: 'secret' is not one of secure, community; did you mean secure?",
        "mine.yaml:6:16 resources.provisioner: runpood: no such provisioner; did you mean runpod?",
        "mine.yaml:7:10 engine.nmae: unknown key; did you mean name?",
        "mine.yaml:7:44 engine.tensor_parallel_size: 0 is out of range: must be at least 1",
        "mine.yaml:9:11 workload.inputs: empty; write at least one",
        "mine.yaml:10:11 workload.prompt: p.txt has no {{ prompt }}: the text to summarise would be lost; "
        "add {{ prompt }}",
        "mine.yaml:11:16 workload.temperature: must be a number, not the text 'hot'",
        "mine.yaml:12:20 limits.max_cost: -1 is out of range: must be at least 0.0",
        "mine.yaml:12:38 limits.max_duration: 3 hours: not a duration; write 90s, 10m, 3h or 1h30m",
    ]


def test_the_problems_of_several_recipes_are_reported_together(here: Folder) -> None:
    here.write(MINIMAL + "colect: [x]\n", "one.yaml")
    here.write(MINIMAL, "fine.yaml")
    names = ["one.yaml", "fine.yaml", "gone.yaml"]
    with pytest.raises(InvalidRecipe) as caught:
        load_all(names, plugins=PLUGINS, cwd=here.path)
    assert [problem.file for problem in caught.value.problems] == ["one.yaml", "gone.yaml"]


ROOT = "name: mine\nmodel: {builtin: lead}\n"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("name: 123", 'name: must be text, not the number 123; put it in quotes: "123"'),
        ("name: 1e3", 'put it in quotes: "1e3"'),
        ("name: true", 'name: must be text, not true; put it in quotes: "true"'),
        ("name:", "name: must be text, not empty"),
        ("name: ''", "name: '' does not match"),
        ("name: -x", "name: '-x' does not match"),
        (f"name: {'x' * 81}", "does not match"),
        ("name: ünï", "name: 'ünï' does not match"),
        ("engine:", "engine: must be a mapping, not empty"),
        ("engine: vllm", "engine: must be a mapping, not the text 'vllm'"),
        ("engine: [vllm]", "engine: must be a mapping, not a list"),
        ("engine: {version: 0.30}", 'engine.version: must be text, not the number 0.3; put it in quotes: "0.30"'),
        ("engine: {name: vlm}", "engine.name: vlm: no such engine; did you mean vllm?"),
        ("engine: {tensor_parallel_size: 1.5}", "must be a whole number, not the number 1.5"),
        ("engine: {tensor_parallel_size: '2'}", "must be a whole number, not the text '2'"),
        ("engine: {args: [a]}", "engine.args: must be a mapping, not a list"),
        ("engine: {args: {a: .nan}}", "engine.args.a: .nan: not a finite number"),
        ("engine: {name: openai}", "engine: engine openai needs a url"),
        ("engine: {name: openai, url: 127.0.0.1:8000}", "must begin with http:// or https://"),
        ("resources: {disk_size: 20}", "resources.disk_size: 20 has no unit; write 20GB"),
        ("resources: {disk_size: [20GB]}", "has no unit; write 20GB"),
        (f"resources: {{disk_size: {'9' * 400}GB}}", "not a size"),
        ("resources: {memory: lots}", "lots: not a size"),
        ("resources: {cpus: 0}", "0: not a number of cores; write 16 or 16+"),
        ("resources: {cpus: true}", "True has no unit; write 16 or 16+"),
        ("resources: {accelerators: 2}", "2 has no unit; write A100-80GB:2"),
        ("resources: {accelerators: A100:none}", "A100:none: not NAME:COUNT; write A100-80GB:2"),
        (
            "resources: {any_of: [{acelerators: A100}]}",
            "any_of[0].acelerators: unknown key; did you mean accelerators?",
        ),
        ("resources: {any_of: {cloud: secure}}", "resources.any_of: must be a list, not a mapping"),
        ("resources: {use_spot: yes}", "resources.use_spot: must be true or false, not the text 'yes'"),
        ("resources: {provisioner: ssh}", "resources: provisioner ssh needs hosts; write hosts: [user@host:22]"),
        ("resources: {volumes: [{size: 1GB}]}", "resources.volumes[0].path: required, but missing"),
        ("resources: {price_per_hour: .inf}", "price_per_hour: .inf: not a finite number"),
        ("limits: {max_duration: 90}", "90 has no unit; write 90s or 3h"),
        (f"limits: {{max_duration: {'9' * 400}s}}", "longer than 3650d"),
        ("limits: {max_cost: ten}", "limits.max_cost: must be a number, not the text 'ten'"),
        ("limits: {max_cost: true}", "limits.max_cost: must be a number, not true"),
        ("limits: {deadlines: {launch: soon}}", "limits.deadlines.launch: soon: not a duration"),
        ("secrets: {HF_TOKEN: hf_x}", "secrets: must be a list, not a mapping"),
        ("secrets: [HF TOKEN]", "secrets[0]: not the name of a variable"),
        ("env: {A: 0.30}", 'env.A: must be text, not the number 0.3; put it in quotes: "0.30"'),
        ("env: {A: true}", 'env.A: must be text, not true; put it in quotes: "true"'),
        ("env: {A: [x]}", "env.A: must be text, not a list"),
        ("env: {A=B: x}", "env.A=B: 'A=B' does not match"),
        ("collect: nohup.out", "collect: must be a list, not the text 'nohup.out'"),
        ("collect: ['']", "collect[0]: empty"),
        ("model: {}", "no model; write model: {repo: owner/name}"),
        ("model: {builtin: led}", "model.builtin: led: no such built-in model; one of lead"),
        ("model: {builtin: lead, repo: a/b}", "model: builtin stands alone; remove repo and path"),
        ("model: {path: gone.gguf}", "gone.gguf: no such file or folder; write a folder or a .gguf file"),
        ("model: {path: m, revision: main}", "model: revision and file need a repo"),
        ("matirx: {}", "matirx: unknown key; did you mean matrix?"),
        ("extend: a", "extend: unknown key; did you mean extends?"),
        (f"{'k' * 1000}: 1", "unknown key"),
        ("workload.concurrency: 8", "unknown key"),
    ],
)
def test_refuses_a_wrong_field(here: Folder, line: str, problem: str) -> None:
    here.write("x", "m")
    key = line.partition(":")[0]
    rest = [kept for kept in MINIMAL.splitlines() if not kept.startswith(f"{key}:")]
    (found,) = here.refusal("\n".join([*rest, line]))
    assert problem in str(found)
    assert (found.line, bool(found.column)) == (1 if found.path == "" else len(rest) + 1, True)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("", "workload: no inputs; write inputs: [texts/*.txt]"),
        ("inputs: [a.txt], traffic: {concurrency: 8}", "traffic is not for summarize; write name: load, or remove it"),
        ("name: load", "load needs traffic; write traffic: {concurrency: [1, 8], synthetic: {input_tokens: 512}}"),
        ("inputs: a.txt", "workload.inputs: must be a list, not the text 'a.txt'"),
        ("inputs: [7]", "workload.inputs[0]: must be text, not the number 7"),
        ("inputs: ['']", "workload.inputs[0]: empty"),
        (
            "inputs: [a.txt], chunk_size: 100, chunk_overlap: 100",
            "chunk_overlap 100 must be smaller than chunk_size 100",
        ),
        ("inputs: [a.txt], temperature: 2.5", "2.5 is out of range: must be at most 2"),
        ("inputs: [a.txt], temperature: .nan", "workload.temperature: .nan: not a finite number"),
        ("inputs: [a.txt], api: chats", "'chats' is not one of completions, chat; did you mean chat?"),
        ("inputs: [a.txt], name: sumarize", "sumarize: no such workload; did you mean summarize?"),
        ("inputs: [a.txt], tokenizer: gone.json", "gone.json: no such file; write a tokenizer.json"),
        ("inputs: [a.txt], seed: 1.0", "workload.seed: must be a whole number"),
    ],
)
def test_refuses_a_wrong_workload(here: Folder, fields: str, problem: str) -> None:
    (found,) = here.problems(f"{ROOT}workload: {{{fields}}}\n")
    assert found.startswith("mine.yaml:3:")
    assert problem in found


@pytest.mark.parametrize("text", ["", "# a comment\n", "~", "---\n", "\n\n"])
def test_an_empty_file_lacks_a_workload(here: Folder, text: str) -> None:
    (problem,) = here.problems(text)
    assert problem.endswith("workload: required, but missing")


@pytest.mark.parametrize("text", ["- a", "abc", "5", "[]", "'name: x'"])
def test_a_recipe_is_a_mapping(here: Folder, text: str) -> None:
    assert here.problems(text) == ["mine.yaml:1:1: a recipe is a mapping; begin with name: …"]


def test_null_in_every_section_is_said_of_every_section(here: Folder) -> None:
    sections = ("name", "resources", "env", "secrets", "model", "engine", "workload", "limits", "collect")
    problems = here.refusal("".join(f"{section}:\n" for section in sections))
    assert {problem.path for problem in problems} == set(sections)


def test_a_key_that_an_endpoint_needs_must_be_a_secret(here: Folder) -> None:
    engine = "engine: {name: openai, url: 'http://127.0.0.1:8000/v1', api_key_env: KEY}\n"
    assert here.run(MINIMAL + engine + "secrets: [KEY]\n").recipe.engine.api_key_env == "KEY"
    assert "engine.api_key_env KEY is not under secrets; write secrets: [KEY]" in here.problems(MINIMAL + engine)[0]


def test_a_plug_in_that_is_still_to_come_may_be_named(here: Folder) -> None:
    text = MINIMAL + "resources: {provisioner: slurm}\n"
    assert here.run(text).recipe.resources.provisioner == "slurm"


def test_a_repository_is_no_path_but_a_folder_of_its_name_is(here: Folder) -> None:
    text = MINIMAL.replace("]}", "], tokenizer: owner/name}")
    assert here.run(text).recipe.workload.tokenizer == "owner/name"
    here.write("{}", "owner/name/tokenizer.json")
    assert here.run(text).recipe.workload.tokenizer == str(here.path / "owner/name")


JUNK: list[Any] = [
    None,
    True,
    -1,
    10**30,
    0.5,
    "",
    "x",
    "20QB",
    "..",
    "~x",
    "\0",
    "{{",
    "a" * 5000,
    [],
    [[]],
    {},
    {"a": {}},
]


@settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
@given(st.sampled_from(catalogue.names()), st.integers(0, 2**32))
def test_a_recipe_with_anything_changed_loads_or_is_refused(tmp_path: Path, name: str, seed: int) -> None:
    chance = random.Random(seed)
    text = (catalogue.ROOT / f"{name}.yaml").read_text(encoding="utf-8")
    if chance.random() < 0.5:
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(text))
            text = (
                text[:at]
                + chance.choice(["", "\n", ":", "- ", "[", "}", "&a ", "*a", "!x ", "\t", "é", "9" * 30])
                + text[at + 1 :]
            )
    else:
        data = yaml.safe_load(text)
        section = chance.choice([data, *(value for value in data.values() if isinstance(value, dict))])
        section[chance.choice([*section, "matrix", "extends", "x"])] = chance.choice(JUNK)
        text = yaml.safe_dump(data)
    path = tmp_path / "changed.yaml"
    path.write_text(text, encoding="utf-8")
    with contextlib.suppress(InvalidRecipe):
        for loaded in load(str(path), plugins=PLUGINS, cwd=tmp_path):
            assert loaded.recipe.resolved()


def test_what_is_wrong_with_the_text_does_not_hide_what_is_wrong_with_the_fields(here: Folder) -> None:
    here.write("x", "m")
    text = "name: a\nname: b\nmodel: {path: m}\nacelerators: 1\nlimits: {max_cost: .nan}\nworkload: {inputs: []}\n"
    assert [p.path for p in here.refusal(text)] == ["name", "acelerators", "limits.max_cost", "workload.inputs"]


def test_a_parent_that_is_missing_does_not_hide_what_is_wrong_with_the_child(here: Folder) -> None:
    found = here.refusal("extends: nowhere\nengin: {}\nworkload: {chunk_size: x}\n")
    assert [p.path for p in found] == ["extends", "engin", "workload.chunk_size"]
