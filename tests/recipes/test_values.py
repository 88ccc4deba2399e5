"""Values are what the standard decorator makes of frozen classes."""

from __future__ import annotations

import dataclasses
import inspect
import pickle
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pytest

from recipes import values

Decorator = Callable[..., Any]
ROOT = Path(__file__).parents[2]
STANDARD: Decorator = dataclasses.dataclass
OURS: Decorator = values.dataclass


def made(dataclass: Decorator) -> dict[str, Any]:
    """The same classes, by either decorator."""

    @dataclass(frozen=True)
    class Plain:
        a: int
        b: str = "x"
        kind: ClassVar[str] = "plain"

        @cached_property
        def twice(self) -> int:
            return 2 * self.a

    @dataclass(frozen=True)
    class Child(Plain):
        """Adds a field, and changes a default."""

        c: tuple[int, ...] = ()
        b: str = "y"

    @dataclass(frozen=True, kw_only=True)
    class Keywords:
        a: int = 1
        b: str

    @dataclass(frozen=True)
    class Fields:
        seen: list[int] = dataclasses.field(default_factory=list)
        a: int = dataclasses.field(default=3, repr=False)
        b: int = dataclasses.field(default=4, compare=False)
        c: int = dataclasses.field(default=5, init=False)
        d: int = dataclasses.field(default=6, kw_only=True)
        e: list[int] = dataclasses.field(default_factory=list, init=False, hash=False)

    @dataclass(frozen=True)
    class Checked:
        a: int

        def __post_init__(self) -> None:
            if self.a < 0:
                raise ValueError("negative")

    @dataclass(frozen=True)
    class OwnWays:
        a: int

        def __eq__(self, other: object) -> bool:
            return True

        def __repr__(self) -> str:
            return "own"

        def __init__(self) -> None:
            object.__setattr__(self, "a", 7)

    @dataclass(frozen=True)
    class Hashed:
        a: int

        def __hash__(self) -> int:
            return 1

    @dataclass(frozen=True)
    class Nothing:
        pass

    @dataclass(frozen=True)
    class One:
        a: float

    @dataclass(frozen=True)
    class Abstract(ABC):
        a: int

        @abstractmethod
        def does(self) -> None: ...

    return {name: found for name, found in locals().items() if isinstance(found, type)}


CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("Plain", (1,), {}),
    ("Plain", (1, "z"), {}),
    ("Plain", (), {"a": 2}),
    ("Plain", (), {}),
    ("Plain", (1, 2, 3), {}),
    ("Child", (1,), {"c": (3,)}),
    ("Keywords", (), {"b": "q"}),
    ("Keywords", ("q",), {}),
    ("Fields", (), {}),
    ("Fields", ([1], 2, 3), {"d": 9}),
    ("Fields", (), {"c": 1}),
    ("Checked", (1,), {}),
    ("Checked", (-1,), {}),
    ("OwnWays", (), {}),
    ("Hashed", (1,), {}),
    ("Nothing", (), {}),
    ("One", (float("nan"),), {}),
    ("Abstract", (1,), {}),
]


def said(action: Callable[[], Any]) -> Any:
    """What comes of it, or its error, without the decorators' names."""
    try:
        return action()
    except Exception as error:
        return type(error), str(error).replace("made.<locals>.", "")


def seen(classes: dict[str, Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """What a user of a value can notice."""
    cls = classes[name]
    value = said(lambda: cls(*args, **kwargs))
    if isinstance(value, tuple):
        return [value]
    other = cls(*args, **kwargs)
    return [
        repr(value),
        value == other,
        value != other,
        value == object(),
        said(lambda: hash(value) == hash(other)),
        said(lambda: setattr(value, "a", 1)),
        said(lambda: delattr(value, "a")),
        said(lambda: dataclasses.asdict(value)),
        said(lambda: repr(dataclasses.replace(value, a=8))),
        [(f.name, f.init, f.kw_only) for f in dataclasses.fields(value)],
        cls.__match_args__,
        [(p.name, p.kind) for p in inspect.signature(cls).parameters.values()],
        vars(value),
    ]


@pytest.mark.parametrize(("name", "args", "kwargs"), CALLS)
def test_a_value_is_what_the_standard_decorator_makes(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    assert seen(made(OURS), name, args, kwargs) == seen(made(STANDARD), name, args, kwargs)


def test_values_of_different_fields_or_classes_differ() -> None:
    classes = made(OURS)
    assert classes["Plain"](1) != classes["Plain"](2)
    assert classes["Plain"](1, "y") != classes["Child"](1)
    assert classes["Fields"](b=1) == classes["Fields"](b=2)


def test_a_value_may_be_inherited_from_by_the_standard_decorator_as_one_of_its_own() -> None:
    plain = made(OURS)["Plain"]

    @STANDARD(frozen=True)
    class More(plain):  # type: ignore[misc, valid-type]
        c: int = 0

    assert repr(More(1, "z", 2)).endswith("More(a=1, b='z', c=2)")
    with pytest.raises(TypeError, match="cannot inherit non-frozen"):
        STANDARD(type("Changes", (plain,), {"__annotations__": {"c": "int"}, "c": 1}))


def test_what_is_reckoned_from_a_value_is_kept_with_it() -> None:
    assert made(OURS)["Plain"](4).twice == 8


def test_defaults_are_made_for_each_value() -> None:
    one, other = made(OURS)["Fields"](), made(OURS)["Fields"]()
    one.seen.append(1)
    assert other.seen == []


@values.dataclass(frozen=True)
class Travels:
    a: int
    b: str = "x"


def test_a_value_travels_between_processes() -> None:
    assert pickle.loads(pickle.dumps(Travels(1))) == Travels(1)


@pytest.mark.parametrize("options", [{}, {"frozen": True, "slots": True}, {"frozen": True, "order": True}])
def test_what_is_no_plain_value_is_made_by_the_standard_decorator(options: dict[str, bool]) -> None:
    @OURS(**options)
    class Made:
        a: int

    value = Made(1)
    assert not hasattr(value, "__dict__") if "slots" in options else vars(value) == {"a": 1}
    assert Made.__dataclass_params__.frozen == ("frozen" in options)  # type: ignore[attr-defined]
    if "order" in options:
        assert Made(1) < Made(2)


def test_every_module_but_those_that_stand_alone_makes_its_values_so() -> None:
    """One that does not costs each command that imports it a third of a millisecond per class."""
    modules = [path for name in ("recipes", "provisioners", "runners") for path in (ROOT / name).rglob("*.py")]
    frozen = re.compile(r"@dataclass\(frozen=True(, kw_only=True)?\)")
    found = [path for path in modules if "onhost" not in path.parts and frozen.search(path.read_text())]
    assert len(found) > 100
    assert [path for path in found if "from recipes.values import dataclass" not in path.read_text()] == []
