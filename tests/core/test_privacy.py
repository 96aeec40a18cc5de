"""Telemetry is off before any library that has some is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

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


def test_what_only_reports_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "openvino_telemetry.py").write_text("raise SystemExit('reported')")
    code = "from atelier.core.privacy import keep_private; keep_private(); import openvino_telemetry"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert "ModuleNotFoundError" in done.stderr
    assert "reported" not in done.stderr


#: Something that each library does in earnest, after it was loaded as atelier loads it.
ACTIONS = {
    "onnxruntime": """
        from onnx import TensorProto, helper
        import numpy as np
        value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])
        graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value("x")], [value("y")])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        session = library.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        assert session.run(None, {"x": np.array([-1], np.float32)})[0][0] == 0
        time.sleep(2)
    """,
    "huggingface_hub": """
        from huggingface_hub.utils import send_telemetry
        send_telemetry("atelier", library_name="atelier", library_version="0")
        time.sleep(1)
    """,
    "gradio": """
        with library.Blocks() as page:
            library.Textbox()
        page.launch(prevent_thread_lock=True, quiet=True, inbrowser=False, server_name="127.0.0.1")
        time.sleep(3)
        page.close()
    """,
    "diffusers": """
        library.DDPMScheduler().save_pretrained(place)
        library.DDPMScheduler.from_pretrained(place)
        library.UNet2DModel(sample_size=8, block_out_channels=(32,), down_block_types=("DownBlock2D",),
                            up_block_types=("UpBlock2D",))
        time.sleep(1)
    """,
    "transformers": """
        library.CLIPTextConfig().save_pretrained(place)
        library.CLIPTextConfig.from_pretrained(place)
        time.sleep(1)
    """,
    "ray": """
        library.init(num_cpus=1, log_to_driver=False)
        assert library.get(library.remote(lambda: 3).remote()) == 3
        time.sleep(3)
        library.shutdown()
    """,
}
#: Files that report nothing: the key by which a Ray cluster on this machine knows its own processes.
NO_REPORTS = {".ray/auth_token"}
#: Quick enough for every run of the tests.
QUICK = ("onnxruntime", "huggingface_hub")
_WATCHED = """
import os, sys, time
place, asked = {place!r}, []

def watch(event, values):
    if event not in ("socket.connect", "socket.getaddrinfo"):
        return
    address = values if event == "socket.getaddrinfo" else values[1]
    host = address[0] if isinstance(address, tuple) else ""  # others are sockets in the file system
    host = host.decode() if isinstance(host, bytes) else str(host or "")
    if host and not host.startswith(("127.", "localhost", "::1", "0.0.0.0")) and host not in own:
        asked.append(host)

import socket
own = {{socket.gethostname(), *socket.gethostbyname_ex(socket.gethostname())[2]}}
sys.addaudithook(watch)
from atelier.core.extras import require
library = require({name!r}, "export", "a test")
{action}
print("ASKED", asked)
"""


def watched(name: str, folder: Path, **more: str) -> tuple[str, list[str]]:
    """What a library asked of the network, and the files that it left in an empty home."""
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    home, place = folder / "home", folder / "work"
    home.mkdir()
    place.mkdir()
    code = _WATCHED.format(place=str(place), name=name, action=textwrap.dedent(ACTIONS[name]))
    plain = {key: value for key, value in os.environ.items() if key not in privacy.SWITCHES}
    plain = {key: value for key, value in plain.items() if not key.startswith(("XDG_", "HF_"))}
    mine = {**plain, "HOME": str(home), "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **more}
    done = subprocess.run(
        [sys.executable, "-c", code], env=mine, cwd=place, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    asked = done.stdout.rpartition("ASKED")[2].strip()
    return asked, sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ACTIONS]
)
def test_nothing_reports(name: str, tmp_path: Path) -> None:
    asked, left = watched(name, tmp_path)
    assert asked == "[]"
    assert not set(left) - NO_REPORTS


def test_the_watch_would_see_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reporter = tmp_path / "reporter.py"
    reporter.write_text(
        textwrap.dedent("""
            import pathlib, socket
            (pathlib.Path.home() / "id.json").write_text("{}")
            line = socket.socket()
            line.setblocking(False)
            line.connect_ex(("192.0.2.1", 443))  # an address that belongs to nobody (RFC 5737)
            line.close()
        """)
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(ACTIONS, "reporter", "")
    asked, left = watched("reporter", tmp_path)
    assert asked == "['192.0.2.1']"
    assert left == ["id.json"]
