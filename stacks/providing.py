"""What the dynamic providers of all stacks have in common."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pulumi import Input, Output, ResourceOptions
from pulumi.dynamic import ConfigureRequest, CreateResult, DiffResult, Resource, ResourceProvider

from provisioners.contract import Site
from provisioners.masking import Mask
from provisioners.site import site_of
from recipes.errors import RecipeError
from stacks import report
from stacks.lifeline import end_with_engine
from stacks.masks import mask_of


class ProviderFailed(Exception):
    """What went wrong, for people: Pulumi shows it as it is."""


class Provider(ResourceProvider):
    """Ends with its engine. A state keeps the name of its class, and nothing that was configured."""

    serialize_as_secret_always = False

    _site: Site
    _mask: Mask

    def __reduce__(self) -> tuple[type[Provider], tuple[()]]:
        """The name of its class."""
        return type(self), ()

    def configure(self, req: ConfigureRequest) -> None:
        """Where things lie, and with which key: from the environment, in the process that needs it."""
        end_with_engine()
        env = dict(os.environ)
        self._site, self._mask = site_of(env), mask_of(env)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What fails within is reported, and handed to Pulumi in words that hold no secret."""
        try:
            yield
        except Exception as error:
            report.tell_failed(error)
            text = str(error) if isinstance(error, RecipeError) else f"{type(error).__name__}: {error}"
            advice = f"\n{error.advice}" if isinstance(error, RecipeError) and error.advice else ""
            raise ProviderFailed(self._mask(text + advice)) from None


class NameProvider(Provider):
    """Makes nothing; what bears the name ends with it, also where Pulumi's state knows of no such thing.

    A state forgets what an update has asked for and then could not say. The name is what it keeps.
    """

    async def end(self, props: Mapping[str, Any]) -> None:
        """Let go of whatever bears `props["unique_name"]`. Raises MayStillBillError without a proof."""
        raise NotImplementedError

    def create(self, props: dict[str, Any]) -> CreateResult:
        return CreateResult(str(props["unique_name"]), plain(props))

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        replaces = ["unique_name"] if _olds["unique_name"] != _news.get("unique_name") else []
        return DiffResult(changes=bool(replaces), replaces=replaces)

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """With proof; one that this process has had a moment ago is enough."""
        if not report.is_released(str(_props["unique_name"])):
            with self._told():
                asyncio.run(self.end(_props))


class Name(Resource):
    """A name, in the state before anything that bears it is asked for."""

    unique_name: Output[str]

    def __init__(
        self,
        provider: NameProvider,
        name: str,
        *,
        unique_name: Input[str],
        opts: ResourceOptions | None = None,
        **props: Any,
    ) -> None:
        """`props` are what the provider needs to find what bears the name."""
        super().__init__(provider, name, {**props, "unique_name": unique_name}, opts)


def plain(props: Mapping[str, Any]) -> dict[str, Any]:
    """The properties without Pulumi's own."""
    return {key: value for key, value in props.items() if not key.startswith("__")}
