"""What a plan holds of the work: the recipe, how texts are cut and asked about, and the documents, not their texts."""

from __future__ import annotations

from dataclasses import dataclass

from recipes.errors import InvalidRecipe, Problem
from recipes.prompts import PromptTemplate
from recipes.spec import Recipe
from recipes.spec import Workload as Settings
from runners.text.splitter import SEPARATORS, Splitter
from runners.text.tokens import TokenCounter
from runners.workloads.summarize.documents import Document

_CONTINUED = "{summary}\n\n[That was the text so far, in short. It goes on:]\n\n{text}"
"""Stands for the text where a template does not say where the summary of what came before belongs."""


@dataclass(frozen=True)
class Prepared:
    recipe: Recipe
    template: PromptTemplate
    splitter: Splitter
    documents: tuple[Document, ...]
    template_tokens: int
    """Of a prompt without a text."""

    def prompt(self, text: str, summary: str | None = None) -> str:
        """What is sent for a text, or for one that continues what a summary tells."""
        return prompt_of(self.template, text, summary)


def prompt_of(template: PromptTemplate, text: str, summary: str | None = None) -> str:
    if summary is None or template.takes_summary:
        return template.render(text, summary or "")
    return template.render(_CONTINUED.format(summary=summary, text=text))


def joint_tokens(template: PromptTemplate, counter: TokenCounter) -> int:
    """What a summary of what came before adds to a prompt, besides itself."""
    itself = counter.count("x") - counter.count("")
    added = counter.count(prompt_of(template, "x", "x")) - counter.count(prompt_of(template, "x"))
    return max(0, added - itself)


def splitter_of(settings: Settings, template: PromptTemplate, counter: TokenCounter) -> Splitter:
    """What cuts the texts. Where each request holds a summary besides, it leaves room for the longest.

    Raises InvalidRecipe if there is none.
    """
    size = settings.chunk_size
    if settings.strategy == "refine":
        size -= settings.max_tokens + joint_tokens(template, counter)
        if size <= max(settings.chunk_overlap, 1):
            message = (
                f"strategy refine sends a summary of up to max_tokens {settings.max_tokens} with each chunk, which "
                f"leaves {max(size, 0)} tokens of chunk_size {settings.chunk_size} for the text"
                + (f", and chunk_overlap takes {settings.chunk_overlap}" if settings.chunk_overlap else "")
            )
            advice = "raise workload.chunk_size, or lower workload.max_tokens"
            raise InvalidRecipe([Problem(file="workload.chunk_size", code="value", message=message, suggestion=advice)])
    return Splitter(
        counter,
        size,
        settings.chunk_overlap,
        SEPARATORS[settings.separators],
        balanced=settings.balanced,
        whole_sentences=settings.whole_sentences,
    )
