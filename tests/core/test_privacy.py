"""Telemetry is off before any library that has some is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from atelier.core import extras, privacy

#: What each library reads, from its documentation.
READS = {
    "gradio": "GRADIO_ANALYTICS_ENABLED",
    "huggingface_hub": "HF_HUB_DISABLE_TELEMETRY",
    "onnxruntime": "ORT_DISABLE_TELEMETRY",
    "ray": "RAY_USAGE_STATS_ENABLED",
}
_CHILD = """
import json, os, sys
from atelier.apps.cli import main
main(["--version"])
print(json.dumps([{name: os.environ.get(name) for name in %r}, [name for name in %r if name in sys.modules]]))
"""


def test_every_library_that_reports_has_its_switch() -> None:
    assert set(READS.values()) <= privacy.SWITCHES.keys()


def test_the_command_turns_all_off_before_the_libraries_are_loaded() -> None:
    code = _CHILD % (list(privacy.SWITCHES), list(READS))
    plain = {name: value for name, value in os.environ.items() if name not in privacy.SWITCHES}
    done = subprocess.run([sys.executable, "-c", code], env=plain, capture_output=True, text=True, check=True)
    values, loaded = json.loads(done.stdout.splitlines()[-1])
    assert values == dict(privacy.SWITCHES)
    assert not loaded


def test_an_optional_package_finds_them_off_and_the_users_word_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in privacy.SWITCHES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DO_NOT_TRACK", "0")
    extras.require("json", "studio", "a test")
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert os.environ["DO_NOT_TRACK"] == "0"
