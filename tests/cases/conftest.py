from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-missing", action="store_true", help="write expected.jsonl of golden cases that lack it")
