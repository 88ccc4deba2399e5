"""`extends` and `--set`: what is merged, what is set, and what is refused on the way."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from recipes import catalogue
from recipes.errors import InvalidRecipe
from tests.recipes.conftest import MINIMAL, Folder


def test_a_recipe_that_extends_another_keeps_what_it_does_not_say(here: Folder) -> None:
    here.write(MINIMAL + "resources: {cpus: 4, use_spot: true}\nengine: {args: {a: 1, b: 2}}\n", "base.yaml")
    child = "extends: base.yaml\nname: child\nresources: {cpus: 8+}\nengine: {args: {b: null, c: [3]}}\n"
    recipe = here.run(child).recipe
    assert recipe.name == "child"
    assert (recipe.resources.cpus.value, recipe.resources.use_spot) == (8, True)  # type: ignore[union-attr]
    assert recipe.engine.args == {"a": 1, "b": None, "c": [3]}


def test_lists_are_replaced_not_joined(here: Folder) -> None:
    here.write(MINIMAL + "collect: [x, y]\n", "base.yaml")
    assert here.run("extends: base.yaml\ncollect: [z]\n").recipe.collect == ("z",)


def test_extends_reaches_the_catalogue_and_several_floors(here: Folder) -> None:
    here.write("extends: local-smoke\nname: one\n", "one.yaml")
    here.write("extends: ../one.yaml\nworkload: {max_tokens: 7}\n", "sub/two.yaml")
    workload = here.run("extends: sub/two.yaml\nname: three\n").recipe.workload
    assert (workload.max_tokens, workload.chunk_size) == (7, 448)
    assert all(Path(path).parent == catalogue.ROOT / "texts" for path in workload.inputs)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("mine.yaml", "extends itself: mine.yaml → mine.yaml"),
        ("./sub/../mine.yaml", "extends itself: mine.yaml → mine.yaml"),
        ("gone.yaml", "gone.yaml: no such file, and no recipe of this name in the catalogue; one of 2xA100-"),
        ("local-smok", "did you mean local-smoke?"),
        (".", ".: is a folder; name a file in it"),
        ("''", "is a folder"),
        ("x" * 5000, "File name too long"),
        ("~nobody-of-this-name/x.yaml", "Could not determine home directory"),
        ("[a.yaml]", "must be a path or a catalogue name"),
        ("", "must be a path or a catalogue name"),
        ("7", "must be a path or a catalogue name"),
        ("{a: b}", "must be a path or a catalogue name"),
    ],
)
def test_extends_refuses_what_it_cannot_read(here: Folder, value: str, problem: str) -> None:
    (here.path / "sub").mkdir()
    (found,) = here.problems(f"name: x\nextends: {value}\n")
    assert found.startswith(f"mine.yaml:2:{9 + bool(value)} extends: ")
    assert problem in found


def test_a_cycle_over_several_files_is_shown_whole(here: Folder) -> None:
    here.write("extends: b.yaml\n", "a.yaml")
    here.write("extends: mine.yaml\n", "b.yaml")
    assert here.problems("extends: a.yaml\n") == [
        "b.yaml:1:10 extends: extends itself: mine.yaml → a.yaml → b.yaml → mine.yaml"
    ]


def test_a_file_may_have_the_name_of_the_catalogue_recipe_it_extends(here: Folder) -> None:
    here.write("extends: local-smoke\nworkload: {concurrency: 1}\n", "local-smoke.yaml")
    assert here.load("local-smoke.yaml")[0].recipe.workload.concurrency == 1


@pytest.mark.parametrize("name", ["local-smoke", "local-smoke.yaml"])
def test_a_recipe_is_found_by_its_name_in_the_catalogue(here: Folder, name: str) -> None:
    assert here.load(name)[0].recipe.name == "local-smoke"


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        ("locl-smoke", "did you mean local-smoke?"),
        ("../local-smoke", "no such file"),
        ("sub", "is a folder; name a file in it"),
        ("x" * 5000, "File name too long"),
        ("a\0b", "no such file"),
    ],
)
def test_a_recipe_that_is_not_there_is_refused(here: Folder, reference: str, problem: str) -> None:
    (here.path / "sub").mkdir()
    with pytest.raises(InvalidRecipe, match=problem.replace("?", r"\?")):
        here.load(reference)


def test_a_problem_is_reported_in_the_file_that_holds_it(here: Folder) -> None:
    here.write(MINIMAL + "limits: {max_cst: 1}\n", "base.yaml")
    assert here.problems("extends: base.yaml\ncolect: [x]\n") == [
        "base.yaml:4:10 limits.max_cst: unknown key; did you mean max_cost?",
        "mine.yaml:2:1 colect: unknown key; did you mean collect?",
    ]


def test_set_reaches_every_depth(here: Folder) -> None:
    text = MINIMAL + "resources: {any_of: [{cloud: secure}, {cloud: secure}]}\n"
    recipe = here.run(
        text,
        "workload.concurrency=3",
        "resources.any_of[1].cloud=community",
        "engine.args.speculative.tokens=5",
        "engine.args.flag=true",
        "env.NAME=a=b",
        "resources.hosts=[me@there:22, you@there:22]",
        "workload.seed=",
    ).recipe
    assert recipe.workload.concurrency == 3
    assert [fallback.cloud for fallback in recipe.resources.any_of] == ["secure", "community"]
    assert recipe.engine.args == {"speculative": {"tokens": 5}, "flag": True}
    assert recipe.env == {"NAME": "a=b"}
    assert recipe.resources.hosts == ("me@there:22", "you@there:22")
    assert recipe.workload.seed is None


def test_the_last_set_wins(here: Folder) -> None:
    assert here.run(MINIMAL, "workload.concurrency=3", "workload.concurrency=4").recipe.workload.concurrency == 4


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("a", "not PATH=VALUE; write --set workload.concurrency=8"),
        ("=x", "not PATH=VALUE"),
        ("", "not PATH=VALUE"),
        (".=5", "'.': not a path"),
        ("[]=5", "'[]': not a path"),
        ("[0]=x", "0: unknown key"),
        ("a[²]=x", "a: unknown key"),
        ("a" + ".a" * 5000 + "=1", "not a path"),
        ("workload.concurency=3", "workload.concurency: unknown key; did you mean concurrency?"),
        ("workload.concurrency=many", "'many' is neither auto nor a whole number of at least 1"),
        ("workload.inputs[7]=x", "workload.inputs[7]: the list has only 1 entry"),
        ("workload.inputs[0].x=1", "workload.inputs[0].x: there is no x in it"),
        ("name.x=1", "name.x: there is no x in it"),
        ("name= 7", 'must be text, not the number 7; put it in quotes: "7"'),
        ("extends=local-smoke", "extends: can be written in a recipe file only"),
        ("workload.inputs=[*.txt]", "put text that begins with * in quotes"),
        ("engine.args.a=!!python/name:os.system", "engine.args.a: YAML tags are not allowed"),
        ("engine.args.a=" + "[" * 5000, "nested more than 50 deep"),
        ("engine.args.a=x: y: z", "mapping values are not allowed here"),
        ("name=\ud800", "U+D800 is not allowed"),
        ("workload=", "workload: must be a mapping, not empty"),
    ],
)
def test_set_refuses_and_names_the_option(here: Folder, override: str, problem: str) -> None:
    (found,) = here.problems(MINIMAL, override)
    assert found.startswith(f"--set {override}:")
    assert problem in found


def test_every_wrong_set_is_reported_at_once(here: Folder) -> None:
    assert len(here.problems(MINIMAL, "a", "workload.inputs[7]=x", "name.x=1")) == 3


def test_paths_start_where_they_are_written(here: Folder) -> None:
    for folder in ("base", "base/child"):
        here.write("text", f"{folder}/t.txt")
        here.write("{{ prompt }}", f"{folder}/p.txt")
    here.write("text", "t.txt")
    base = "name: b\nmodel: {path: m.gguf}\nworkload: {inputs: [t.txt], prompt: p.txt, tokenizer: t.txt}\n"
    here.write("GGUF", "base/m.gguf")
    here.write(base, "base/base.yaml")
    here.write("extends: ../base.yaml\nworkload: {prompt: p.txt}\n", "base/child/child.yaml")
    (loaded,) = here.load("base/child/child.yaml", "workload.inputs=[t.txt]")
    workload = loaded.recipe.workload
    assert Path(workload.inputs[0]) == here.path / "t.txt"
    assert Path(workload.prompt).resolve() == here.path / "base/child/p.txt"
    assert Path(workload.tokenizer or "").resolve() == here.path / "base/t.txt"
    assert Path(loaded.recipe.model.path or "").resolve() == here.path / "base/m.gguf"


def test_the_digest_is_the_same_wherever_the_recipe_lies(here: Folder) -> None:
    text = MINIMAL.replace("]}", "], prompt: p.yaml}")
    here.write("prompt_template: '{{ prompt }}!'", "p.yaml")
    digest = here.run(text).digest
    copy = here.path / "else/where"
    copy.mkdir(parents=True)
    for name in ("mine.yaml", "p.yaml", "a.txt"):
        shutil.copy(here.path / name, copy / name)
    assert here.load("else/where/mine.yaml")[0].digest == digest
    assert here.load("else/where/mine.yaml", "workload.max_tokens=1000")[0].digest == digest
    assert here.load("else/where/mine.yaml", "workload.max_tokens=1001")[0].digest != digest
    here.write("prompt_template: '{{ prompt }}?'", "else/where/p.yaml")
    assert here.load("else/where/mine.yaml")[0].digest != digest
