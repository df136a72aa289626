# _wire.py - from the JSON of an answer to typed values.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
from typing import Any, Dict, Mapping, Type, TypeVar

from . import errors

T = TypeVar("T")


def need(given: Mapping[str, Any], name: str) -> Any:
    """A field that the API promises."""
    try:
        return given[name]
    except (KeyError, TypeError):
        raise errors.ProtocolError(
            f"the answer has no field {name!r}"
        ) from None


def record(cls: Type[T], given: Any) -> T:
    """A dataclass from the fields of the same names; others are ignored."""
    if not isinstance(given, Mapping):
        raise errors.ProtocolError(f"no object where a {cls.__name__} must be")
    values = {}
    for field in dataclasses.fields(cls):
        required = (
            field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        )
        if required or given.get(field.name) is not None:
            values[field.name] = need(given, field.name)
    return cls(**values)


def given(**fields: Any) -> Dict[str, Any]:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def options(kind: type, values: Mapping[str, Any]) -> Dict[str, Any]:
    """What was given of the options that the TypedDict `kind` lists."""
    unknown = sorted(values.keys() - kind.__annotations__.keys())
    if unknown:
        known = ", ".join(sorted(kind.__annotations__))
        raise TypeError(f"no option {unknown[0]!r}; there are: {known}")
    return given(**values)
