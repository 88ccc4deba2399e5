"""Prompt templates in Jinja2: a YAML file with `prompt_template`, a text file, or the template itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from recipes import catalogue
from recipes.errors import InvalidRecipe
from recipes.source import parse, read_text

if TYPE_CHECKING:
    from jinja2 import Template

_PROMPT = re.compile(r"\{\{\s*prompt\s*\}\}")
_NEWLINE = re.compile(r"\r\n|\r|\n")
_SYNTAX = ("{{", "{%", "{#")


@dataclass(frozen=True)
class PromptTemplate:
    """A template's text and where it came from."""

    text: str
    filename: str

    def render(self, prompt: str, summary: str = "") -> str:
        """The prompt that is sent for this text, after a text of which `summary` is all that is known."""
        parts = self.parts
        return _compiled(self.text).render(prompt=prompt, summary=summary) if parts is None else prompt.join(parts)

    @property
    def parts(self) -> tuple[str, ...] | None:
        """What stands before, between and after the places of the text; None if the template computes something."""
        return _parts(self.text)

    @property
    def takes_summary(self) -> bool:
        """Whether it says itself where the summary of what came before stands."""
        return self.parts is None and "summary" in _variables(self.text)


@lru_cache(maxsize=32)
def _parts(text: str) -> tuple[str, ...] | None:
    """As Jinja2 would fill it in, without the time that it takes to import: one newline at the end is not kept."""
    lines = _NEWLINE.split(text)
    parts = _PROMPT.split("\n".join(lines if lines[-1] else lines[:-1]))
    computes = any(mark in part for part in parts for mark in _SYNTAX) or any(p.endswith("{") for p in parts[:-1])
    return None if computes else tuple(parts)


@lru_cache(maxsize=32)
def _compiled(text: str) -> Template:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment().from_string(text)


def load_prompt(value: str) -> PromptTemplate:
    """The template that a recipe's `workload.prompt` names, its paths already absolute. Raises ValueError."""
    if "{{" in value or "\n" in value:
        return _checked(value, "inline")
    path = catalogue.builtin_prompt(value.removeprefix("builtin:")) if value.startswith("builtin:") else Path(value)
    try:
        text = read_text(path)
        if path.suffix in (".yaml", ".yml"):
            text = _template_in(text, path)
    except InvalidRecipe as error:
        raise ValueError(str(error.problems[0])) from None
    return _checked(text, str(path))


def _template_in(text: str, path: Path) -> str:
    data = parse(text, file=str(path), base=path.parent).data()
    template = data.get("prompt_template") if isinstance(data, dict) else None
    if not isinstance(template, str):
        raise ValueError(f"{path} has no prompt_template; write prompt_template: | and the text below it")
    return template


@lru_cache(maxsize=32)
def _variables(text: str) -> frozenset[str]:
    """The names that a template wants filled in. Raises what Jinja raises for a text that is none."""
    from jinja2 import meta
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return frozenset(meta.find_undeclared_variables(ImmutableSandboxedEnvironment().parse(text)))


@lru_cache(maxsize=32)
def _checked(text: str, name: str) -> PromptTemplate:
    if len(_parts(text) or ()) > 1:
        return PromptTemplate(text, name)
    from jinja2 import TemplateSyntaxError

    try:
        used = _variables(text)
    except TemplateSyntaxError as error:
        raise ValueError(f"{name}:{error.lineno}: not a template: {error.message}") from None
    except RecursionError:
        raise ValueError(f"{name}: not a template: nested too deep") from None
    if "prompt" not in used:
        raise ValueError(f"{name} has no {{{{ prompt }}}}: the text to summarise would be lost; add {{{{ prompt }}}}")
    if unknown := sorted(used - {"prompt", "summary"}):
        known = "{{ prompt }} and, for strategy refine, {{ summary }} are the only variables"
        raise ValueError(f"{name} uses {unknown[0]}, which is not known; {known}")
    template = PromptTemplate(text, name)
    try:
        template.render("some text")
        template.render("some text", "its summary")
    except Exception as error:  # of any kind: a template computes what its writer likes
        raise ValueError(f"{name} cannot be filled in: {error}") from None
    return template
