#!/usr/bin/env python3
"""Times pushes of one image against skopeo's, in turn, and prints medians and ratios.

usage: benches/push.py SOURCE [--runs N] [--registry embedded|COMMAND] [--peer-source SOURCE]
                       [--compression HOW]

SOURCE is an OCI layout folder or a docker archive. Every run starts a fresh registry over an empty folder and, for
longshore, an empty cache; then follow a second push (`again`), and one from a machine whose cache is empty (`fresh`). Wall seconds, CPU seconds and peak memory are the operating system's own (wait4), of the
pushing process alone. Options of longshore are set by its variables: LONGSHORE_JOBS=2 benches/push.py …
COMMAND is a registry of the make of distribution, such as docker-registry.
Needs target/release/longshore and skopeo.
"""

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LONGSHORE = os.path.join(HERE, "target", "release", "longshore")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Registry:
    """A registry of the asked kind over an empty folder."""

    def __init__(self, kind, folder):
        self.port = free_port()
        store = os.path.join(folder, "store")
        os.makedirs(store)
        if kind == "embedded":
            command = [LONGSHORE, "serve", store, "--listen", f"127.0.0.1:{self.port}"]
        else:
            config = os.path.join(folder, "registry.yml")
            with open(config, "w", encoding="utf-8") as file:
                file.write(
                    "version: 0.1\nlog: {level: error}\n"
                    f"storage: {{filesystem: {{rootdirectory: {store}}}}}\n"
                    f"http: {{addr: 127.0.0.1:{self.port}}}\n"
                )
            command = [kind, "serve", config]
        environment = dict(os.environ, OTEL_TRACES_EXPORTER="none")
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                time.sleep(0.02)
        sys.exit("the registry did not start")

    def stop(self):
        self.process.kill()
        self.process.wait()


def run(command, environment):
    """Runs a command; returns wall and CPU seconds and peak MiB."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    )
    words = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status != 0:
        sys.exit(f"{command}: {words.decode(errors='replace')}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--registry", default="embedded")
    parser.add_argument("--peer-source", help="what skopeo is given, if its spelling differs")
    parser.add_argument("--compression", help="gzip[:N] or zstd[:N], for both (levels for longshore alone)")
    arguments = parser.parse_args()
    peer_source = arguments.peer_source or (
        f"oci:{arguments.source}" if os.path.isdir(arguments.source) else f"docker-archive:{arguments.source}"
    )
    ours, theirs = [], []
    if arguments.compression:
        ours = ["--compression", arguments.compression]
        theirs = ["--dest-compress-format", arguments.compression.split(":")[0]]
    rows = {"longshore": [], "longshore again": [], "longshore fresh": [], "skopeo": []}
    for _ in range(arguments.runs):
        for name in ("longshore", "skopeo"):
            folder = tempfile.mkdtemp(prefix="longshore-bench-")
            registry = Registry(arguments.registry, folder)
            target = f"127.0.0.1:{registry.port}/bench:1"
            environment = dict(os.environ, LONGSHORE_CACHE_DIR=os.path.join(folder, "cache"))
            try:
                if name == "longshore":
                    command = [LONGSHORE, "push", "-q", arguments.source, target, *ours]
                    rows[name].append(run(command, environment))
                    rows["longshore again"].append(run(command, environment))
                    environment["LONGSHORE_CACHE_DIR"] = os.path.join(folder, "empty")
                    rows["longshore fresh"].append(run(command, environment))
                else:
                    command = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false"]
                    rows[name].append(run([*command, *theirs, peer_source, f"docker://{target}"], environment))
            finally:
                registry.stop()
                shutil.rmtree(folder, ignore_errors=True)
    for name, runs in rows.items():
        wall, cpu, peak = (statistics.median(column) for column in zip(*runs))
        low, high = min(row[0] for row in runs), max(row[0] for row in runs)
        print(f"{name:16} wall {wall:7.3f} s [{low:.3f}–{high:.3f}]  cpu {cpu:6.2f} s  peak {peak:5.0f} MiB")
    ratios = sorted(theirs[0] / ours[0] for ours, theirs in zip(rows["longshore"], rows["skopeo"]))
    print(f"skopeo / longshore, pair by pair: median {statistics.median(ratios):.2f} [{ratios[0]:.2f}–{ratios[-1]:.2f}]")


if __name__ == "__main__":
    main()
