"""The protocol beside a result, in words."""

from collections.abc import Mapping
from typing import Any


def describe_protocol(protocol: Mapping[str, Any]) -> str:
    """One line of the choices that were made, without those that are off."""

    def text(value: Any) -> str:
        return " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)

    return ", ".join(
        name if value is True else f"{name} {text(value)}"
        for name, value in protocol.items()
        if value is not None and value is not False
    )
