"""Starting runs in several processes over loopback, each with virtual devices of its own."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import tiny

SECONDS = 240  # a process that hangs is killed


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def start(
    config: Path,
    workdir: Path,
    folder: Path,
    count: int = 2,
    devices: int = 1,
    only: int | None = None,
    flags: tuple[str, ...] = (),
    **values: str,
) -> list[tuple[subprocess.Popen, Path]]:
    """Starts the command in `count` processes (or process `only` of them); gives each with its log."""
    port = values.pop("port", None) or free_port()
    command = tiny.command("vdit.train", f"--config={config}", f"--workdir={workdir}", *flags)
    started = []
    for i in range(count) if only is None else (only,):
        many = {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": str(count),
            "JAX_PROCESS_ID": str(i),
        }
        environment = tiny.environment(devices=devices, **(many if count > 1 else {}), **values)
        log = folder / f"log-{i}"
        with log.open("w") as output:
            started.append((subprocess.Popen(command, env=environment, stdout=output, stderr=output), log))
    return started


def run_together(
    config: Path, workdir: Path, folder: Path, count: int = 2, devices: int = 1, flags: tuple[str, ...] = ()
) -> list[str]:
    """Runs the command in several processes at once to its end; gives what each printed."""
    started = start(config, workdir, folder, count, devices, flags=flags)
    try:
        for process, log in started:
            assert process.wait(SECONDS) == 0, log.read_text()
    finally:
        for process, _ in started:
            process.kill()
    return [log.read_text() for _, log in started]
