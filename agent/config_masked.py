"""Settings as they may be shown: whatever may be a secret is masked, however deep it lies (decision 008)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from agent.config_lines import KeyPath
from agent.config_words import MASK, masked_url, secret


def masked_value(value: Any, path: KeyPath) -> Any:
    """A setting without what may be secret in it, however deep."""
    if secret(path):
        return MASK
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_defaults=True)
    if isinstance(value, Mapping):
        return {key: masked_value(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [masked_value(item, path) for item in value]
    return masked_url(value) if isinstance(value, str) else value


def masked(config: BaseModel) -> dict[str, Any]:
    """What a configuration says, as JSON has it, without what may be secret."""
    said = config.model_dump(mode="json", exclude_unset=True)
    return {key: masked_value(value, (key,)) for key, value in said.items() if not secret((key,))}
