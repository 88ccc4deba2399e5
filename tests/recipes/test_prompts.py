"""Prompt templates: where they may stand, and that the text which they are made for is never lost."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from recipes import catalogue
from recipes.prompts import PromptTemplate, load_prompt
from tests.recipes.conftest import MINIMAL, Folder

# The form in which the older summarising script kept its prompts.
OF_THE_SCRIPT = """\
prompt_template: |
  Below is an instruction that describes a task. Write a response that appropriately completes the request.

  ### Instruction:
  Summarize the following text in 130 words: it's "quoted", costs 5% and has {braces}.

  {{ prompt }}

  ### Response:
"""


def with_prompt(value: str) -> str:
    return MINIMAL.replace("]}", f"], prompt: {value}}}")


def test_the_scripts_own_prompt_files_work_as_they_are(here: Folder) -> None:
    here.write(OF_THE_SCRIPT, "prompt.yaml")
    prompt = load_prompt(here.run(with_prompt("prompt.yaml")).recipe.workload.prompt)
    expected = OF_THE_SCRIPT.removeprefix("prompt_template: |\n").replace("\n  ", "\n").removeprefix("  ")
    assert prompt.render("A {{ text }} & <more>") == expected.rstrip("\n").replace(
        "{{ prompt }}", "A {{ text }} & <more>"
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.yaml", "prompt_template: 'Sum up: {{ prompt }}'\nanything_else: 7\n"),
        ("p.yml", '\ufeffprompt_template: "Sum up: {{prompt}}"\r\n'),
        ("p.txt", "Sum up: {{ prompt }}"),
        ("p.txt", "\ufeffSum up: {{ prompt }}"),
        ("p.j2", "{# a note #}Sum up: {{ prompt | trim }}"),
    ],
)
def test_a_prompt_file_is_yaml_or_plain_text(here: Folder, name: str, content: str) -> None:
    here.write(content, name)
    assert load_prompt(here.run(with_prompt(name)).recipe.workload.prompt).render("it") == "Sum up: it"


@pytest.mark.parametrize(
    "value", ['"Sum up: {{ prompt }}"', '"{{ prompt }}\\nSum up."', '"{% if 1 %}{{ prompt }}\\n{% endif %}"']
)
def test_a_prompt_may_stand_in_the_recipe(here: Folder, value: str) -> None:
    assert "it" in load_prompt(here.run(with_prompt(value)).recipe.workload.prompt).render("it")


@pytest.mark.parametrize("name", sorted(path.stem for path in (catalogue.ROOT / "prompts").glob("*.yaml")))
def test_the_prompts_that_ship_with_recipe_hold_the_text(here: Folder, name: str) -> None:
    value = here.run(with_prompt(f"builtin:{name}")).recipe.workload.prompt
    assert "Once upon" in load_prompt(value).render("Once upon")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("prompt_template: Sum up.\n", "has no {{ prompt }}: the text to summarise would be lost; add {{ prompt }}"),
        ("prompt_template: 'Sum up {{ promt }}'\n", "has no {{ prompt }}"),
        ("prompt_template: '{# {{ prompt }} #}'\n", "has no {{ prompt }}"),
        ("prompt_template: '{{ prompt }} {{ style }}'\n", "uses style, which is not known"),
        ("prompt_template: '{{ prompt'\n", "not a template"),
        ("prompt_template: '{% for %}{{ prompt }}'\n", "not a template"),
        ("prompt_template: '{{ prompt | shorten }}'\n", "not a template: No filter named 'shorten'"),
        ("prompt_template: '{{ prompt / 2 }}'\n", "cannot be filled in"),
        ("prompt_template: '{{ prompt.a.b }}'\n", "cannot be filled in"),
        ("prompt_template: '{% include \"x\" %}{{ prompt }}'\n", "cannot be filled in"),
        (f"prompt_template: '{{{{ {'(' * 3000}prompt{')' * 3000} }}}}'\n", "nested too deep"),
        ("prompt: '{{ prompt }}'\n", "has no prompt_template; write prompt_template: | and the text below it"),
        ("prompt_template:\n", "has no prompt_template"),
        ("prompt_template: [a]\n", "has no prompt_template"),
        ("- a\n", "has no prompt_template"),
        ("", "has no prompt_template"),
        ("prompt_template: !!timestamp x\n", "p.yaml:1:18: YAML tags are not allowed"),
        ("prompt_template: a: b\n", "p.yaml:1:19: not YAML"),
        ("[" * 5000, "nested more than 50 deep"),
        ('prompt_template: "\\U00110000"\n', "there is no such character"),
        (b"prompt_template: \xff", "not UTF-8: byte 17 is 0xff; save the file as UTF-8"),
        (None, "p.yaml: No such file or directory"),
    ],
)
def test_a_prompt_that_would_not_work_is_refused_where_it_is_named(
    here: Folder, content: str | bytes | None, problem: str
) -> None:
    if content is not None:
        here.write(content, "p.yaml")
    (found,) = here.problems(with_prompt("p.yaml"))
    assert found.startswith("mine.yaml:3:37 workload.prompt: ")
    assert problem in found


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("builtin:sumarize", "builtin:sumarize: no such prompt; one of airoboros-extended-130, summarize"),
        ("'{{ text }}'", "inline has no {{ prompt }}"),
        ("sub", "sub: Is a directory"),
        ("~nobody-of-this-name/p.txt", "Could not determine home directory"),
        ("x" * 5000, "File name too long"),
        ('"a\\nb"', "inline has no {{ prompt }}"),
    ],
)
def test_a_prompt_that_is_none_is_refused(here: Folder, value: str, problem: str) -> None:
    (here.path / "sub").mkdir()
    (found,) = here.problems(with_prompt(value))
    assert found.startswith("mine.yaml:3:37 workload.prompt: ")
    assert problem in found


def test_a_template_reaches_nothing_of_the_program(here: Folder) -> None:
    (found,) = here.problems(with_prompt('"{{ prompt.__class__.__mro__ }}"'))
    assert "cannot be filled in" in found


PIECES = [
    "{{ prompt }}",
    "{{prompt}}",
    "{{\n prompt\t}}",
    "{",
    "}",
    "%",
    "a",
    " ",
    "\n",
    "\r",
    "\r\n",
    "\x0b",
    "é\u2028",
]


@given(st.lists(st.sampled_from(PIECES)), st.sampled_from(["", "some text", "{{ prompt }}\r\n", "\\1 <b>"]))
@example(["{", "{{ prompt }}"], "it")
@example(["{{ prompt }}", "}"], "it")
@example(["{{ prompt }}", "\r", "\n"], "it")
def test_what_is_filled_in_without_jinja_is_what_jinja_fills_in(pieces: list[str], text: str) -> None:
    prompt = PromptTemplate("".join(pieces), "a test")
    if prompt.parts is not None:
        assert prompt.render(text) == ImmutableSandboxedEnvironment().from_string(prompt.text).render(prompt=text)


@pytest.mark.parametrize(
    "computes", ["{{ prompt|trim }}", "{{- prompt }}", "{% if prompt %}", "{# x #}", "{{{ prompt }}"]
)
def test_what_computes_is_left_to_jinja(computes: str) -> None:
    assert PromptTemplate("{{ prompt }}" + computes, "a test").parts is None
