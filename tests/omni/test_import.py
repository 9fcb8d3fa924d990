"""Importing: httpx is an extra, imported by who asks for it."""

from __future__ import annotations

import subprocess
import sys

WITHOUT = """
import sys
sys.modules["httpx"] = None
try:
    import omni_worker.omni
except Exception as error:
    print(type(error).__name__, error)
"""


def test_the_package_does_not_import_httpx() -> None:
    code = "import sys, omni_worker, omni_worker.testing; print('httpx' in sys.modules)"

    assert said(code) == "False\n"


def test_without_httpx_the_error_names_the_extra() -> None:
    assert said(WITHOUT) == (
        "ConfigError sending by Omni needs httpx: pip install 'omni-worker[omni]'\n"
    )


def said(code: str) -> str:
    """Return the output of a Python process."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout
