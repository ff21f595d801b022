"""The warning about more processes than cores."""

from __future__ import annotations

import os

import pytest

from dispatcher.cli.common import warn_of_processes


@pytest.mark.parametrize(("processes", "warned"), [(1, False), (4, False), (5, True)])
def test_more_processes_than_cores_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], processes: int, warned: bool
) -> None:
    # Given a machine on which we may use four cores
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2, 3}, raising=False)
    warn_of_processes(processes)
    told = capsys.readouterr()
    expected = "swipebell: warning: --processes 5 on 4 cores: more than one a core only costs memory\n"
    assert (told.out, told.err) == ("", expected if warned else "")
