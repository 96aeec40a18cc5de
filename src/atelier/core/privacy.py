"""No telemetry: the switches of every library that would otherwise report its use.

They are environment variables, which the libraries read when they are imported, and packages that do nothing
but report, which are kept from being imported. `core.extras.require`, the command line and the studio call
`keep_private` before that. A value that the user has set stays.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from types import MappingProxyType

#: The switches by name: onnxruntime, gradio, Hugging Face (two), Ray, and the common one.
SWITCHES: Mapping[str, str] = MappingProxyType(
    {
        "DO_NOT_TRACK": "1",
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DISABLE_TELEMETRY": "1",
        "ORT_DISABLE_TELEMETRY": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
)

#: Packages whose only purpose is to report; those that use them work without. OpenVINO's has no switch.
REPORTERS = ("openvino_telemetry",)


def keep_private() -> None:
    """Turns telemetry off for this process and those that it starts.

    >>> keep_private()
    >>> "GRADIO_ANALYTICS_ENABLED" in os.environ
    True
    """
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
    for package in REPORTERS:
        # None makes `import` fail as if the package were not installed.
        sys.modules.setdefault(package, None)  # type: ignore[arg-type]
