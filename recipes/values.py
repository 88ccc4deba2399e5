"""`dataclass`, for values: what the standard decorator makes of a frozen class, in a quarter of the time.

The standard one compiles six small functions for each class, which for the two hundred that a run imports was a fifth
of its CPU time. Here only `__init__` is compiled; the others are the same for every class and read its fields. Type
checkers see the standard decorator. What is not frozen, has slots or an order, or inherits fields is made by it as
well. A field cannot be an InitVar.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(cls=None, /, *, frozen=False, kw_only=False, **more):
        """As dataclasses.dataclass."""

        def made(cls):
            if frozen and not more and not (hasattr(cls, "__dataclass_fields__") and dataclasses.fields(cls)):
                return _value(cls, kw_only=kw_only)
            return dataclasses.dataclass(cls, frozen=frozen, kw_only=kw_only, **more)

        return made if cls is None else made(cls)


def _value(cls: type, *, kw_only: bool) -> type:
    own = set(vars(cls))
    if cls.__doc__ is None:  # for such a class the standard decorator asks inspect for the signature, which is slow
        cls.__doc__ = f"{cls.__name__}({', '.join(vars(cls).get('__annotations__', ()))})"
    cls = dataclasses.dataclass(init=False, repr=False, eq=False, kw_only=kw_only)(cls)
    fields = dataclasses.fields(cls)
    if fields:  # the standard decorator makes what inherits them, and asks for this
        cls.__dataclass_params__.frozen = True  # type: ignore[attr-defined]
    methods: dict[str, Any] = {
        "__setattr__": _no_assignment,
        "__delattr__": _no_deletion,
        "__repr__": _repr,
        "__eq__": _equality(_getter([f.name for f in fields if f.compare])),
        "__init__": _initialiser(cls, fields),
    }
    if "__eq__" in own and vars(cls).get("__hash__") is None:  # a class with an equality of its own has lost its hash
        own.discard("__hash__")
    if "__hash__" not in own:
        methods["__hash__"] = _hashing(_getter([f.name for f in fields if (f.compare if f.hash is None else f.hash)]))
    for name, method in methods.items():
        if name not in own:
            setattr(cls, name, method)
    return cls


def _initialiser(cls: type, fields: tuple[dataclasses.Field[Any], ...]) -> Callable[..., None]:
    """Compiled, because it is what runs often."""
    names: dict[str, Any] = {"_set": object.__setattr__, "_MISSING": dataclasses.MISSING, "__name__": cls.__module__}
    by_position = ["self"]
    by_keyword: list[str] = []
    body: list[str] = []
    for field in fields:
        name, default, value = field.name, "", field.name
        if field.default is not dataclasses.MISSING:
            names[f"_default_{name}"] = field.default
            default = f"=_default_{name}"
        elif field.default_factory is not dataclasses.MISSING:
            names[f"_make_{name}"] = field.default_factory
            default = "=_MISSING"
            value = f"_make_{name}() if {name} is _MISSING else {name}" if field.init else f"_make_{name}()"
        if field.init:
            (by_keyword if field.kw_only else by_position).append(name + default)
        if field.init or default == "=_MISSING":  # a plain default is the class's own
            body.append(f" _set(self,{name!r},{value})")
    if hasattr(cls, "__post_init__"):
        body.append(" self.__post_init__()")
    parameters = ",".join([*by_position, *(["*", *by_keyword] if by_keyword else [])])
    exec(f"def __init__({parameters}):\n" + ("\n".join(body) or " pass"), names)  # noqa: S102
    made: Callable[..., None] = names.pop("__init__")
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    return made


def _getter(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    return lambda value: tuple(getattr(value, name) for name in names)


def _equality(values: Callable[[Any], tuple[Any, ...]]) -> Callable[[Any, Any], bool]:
    def __eq__(self: Any, other: Any) -> bool:  # noqa: N807
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    return __eq__


def _hashing(values: Callable[[Any], tuple[Any, ...]]) -> Callable[[Any], int]:
    return lambda self: hash(values(self))


def _repr(self: Any) -> str:
    shown = [f"{f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self) if f.repr]
    return f"{self.__class__.__qualname__}({', '.join(shown)})"


def _no_assignment(self: Any, name: str, value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _no_deletion(self: Any, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
