"""Prompt templates in Jinja2: a YAML file with `prompt_template`, a text file, or the template itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from recipes import catalogue
from recipes.errors import InvalidRecipe
from recipes.source import parse, read_text

if TYPE_CHECKING:
    from jinja2 import Template


@dataclass(frozen=True)
class PromptTemplate:
    """A template's text and where it came from."""

    text: str
    filename: str

    def render(self, prompt: str) -> str:
        """The prompt that is sent for this text."""
        return _compiled(self.text).render(prompt=prompt)


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
def _checked(text: str, name: str) -> PromptTemplate:
    from jinja2 import TemplateSyntaxError, meta
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    try:
        used = meta.find_undeclared_variables(ImmutableSandboxedEnvironment().parse(text))
    except TemplateSyntaxError as error:
        raise ValueError(f"{name}:{error.lineno}: not a template: {error.message}") from None
    except RecursionError:
        raise ValueError(f"{name}: not a template: nested too deep") from None
    if "prompt" not in used:
        raise ValueError(f"{name} has no {{{{ prompt }}}}: the text to summarise would be lost; add {{{{ prompt }}}}")
    if unknown := sorted(used - {"prompt"}):
        raise ValueError(f"{name} uses {unknown[0]}, which is not known; {{{{ prompt }}}} is the only variable")
    template = PromptTemplate(text, name)
    try:
        template.render("some text")
    except Exception as error:  # of any kind: a template computes what its writer likes
        raise ValueError(f"{name} cannot be filled in: {error}") from None
    return template
