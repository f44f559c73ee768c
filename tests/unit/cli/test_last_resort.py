"""A process ends in time after SIGTERM, even if its event loop is blocked."""

import asyncio
import json
import os
import sys
from pathlib import Path

from pilothouse.cli.operator import REST_SECONDS
from pilothouse.testing import eventually
from tests.unit.cli.stuck_operator import STUCK

ROOT = Path(__file__).parents[3]
# No server listens there. It does not matter, because the loop is blocked.
KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "none", "cluster": {"server": "http://127.0.0.1:1"}}],
    "users": [{"name": "none", "user": {}}],
    "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
    "current-context": "none",
}


async def test_a_loop_that_is_stuck_does_not_outlive_sigterm(tmp_path: Path) -> None:
    kubeconfig, log = tmp_path / "kubeconfig", tmp_path / "log"
    kubeconfig.write_text(json.dumps(KUBECONFIG))
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}",
        "KUBECONFIG": str(kubeconfig),
        "HEALTH_ADDRESS": "127.0.0.1:0",
        "GRACEFUL_SHUTDOWN_TIMEOUT": "0",
    }
    with log.open("w") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.unit.cli.stuck_operator",
            env=environment,
            cwd=ROOT,
            stderr=errors,
        )
    try:
        await eventually(lambda: STUCK in log.read_text(), within=60, describe=log.read_text)
        process.terminate()
        await eventually(lambda: process.returncode is not None, within=30, describe=log.read_text)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = log.read_text()
    assert process.returncode == 1, text
    assert f"Exiting: the process did not end within {REST_SECONDS:g} s" in text
