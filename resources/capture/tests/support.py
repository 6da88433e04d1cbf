# SPDX-License-Identifier: Apache-2.0
"""What several tests need: sparsight-cli's judgement on a trace."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

CLI = os.environ.get("SPARSIGHT_CLI", str(Path(__file__).parents[3] / "build/release/bin/sparsight-cli"))


def check_trace(path: Path, complete: bool = True) -> str:
    """Fails the test where ``sparsight-cli check --deep`` finds an error, or where `complete` is not as expected. Returns
    what it said. Without the program the rest of the test still counts, and says so."""
    if not Path(CLI).exists():
        pytest.skip(f"{CLI} is not built (./dev build)")
    run = subprocess.run([CLI, "check", "--deep", str(path)], capture_output=True, text=True)
    text = run.stdout + run.stderr
    assert run.returncode == 0 and "0 errors, 0 mismatches" in text, text
    assert ("did not end cleanly" in text) != complete, text
    return text
