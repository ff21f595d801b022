"""The ledger, as each of its backends has it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dispatcher.ledger.api import Ledger
from tests.dispatcher.ledger_kit import BACKENDS


@pytest.fixture(params=list(BACKENDS))
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ledger]:
    """A new ledger of each backend in turn."""
    made = await BACKENDS[request.param](tmp_path)
    yield made
    await made.aclose()
