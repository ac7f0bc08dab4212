#!/usr/bin/env python3
"""Times the embedded registry against docker-registry: taking a large blob, taking many at once, serving one.

usage: benches/serve.py [--runs N] [--mib N] [--clients N] [--each-mib N]

curl is the client, so that both are asked the same. Each run starts an empty registry of each kind in turn. Prints medians
of wall seconds, of the server's own CPU seconds and of its peak MiB, and the ratios pair by pair (below 1: ours is less).
Needs target/release/longshore, docker-registry and curl.
"""

import argparse
import hashlib
import os
import statistics
import subprocess
import tempfile
import time

from push import Registry

TICKS = os.sysconf("SC_CLK_TCK")


def noise(folder, name, size):
    """Writes a file of `size` MiB; returns its path and digest."""
    path, digest = os.path.join(folder, name), hashlib.sha256()
    with open(path, "wb") as file:
        for _ in range(size):
            piece = os.urandom(1 << 20)
            digest.update(piece)
            file.write(piece)
    return path, f"sha256:{digest.hexdigest()}"


def cpu(process):
    with open(f"/proc/{process.pid}/stat", encoding="utf-8") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak(process):
    with open(f"/proc/{process.pid}/status", encoding="utf-8") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def curl(*arguments):
    return subprocess.Popen(["curl", "-sSf", *arguments], stdout=subprocess.PIPE)


def begin(url):
    """Opens an upload."""
    words = curl("-X", "POST", "-D", "-", "-o", "/dev/null", f"{url}/v2/bench/blobs/uploads/").communicate()[0]
    lines = [line for line in words.decode().splitlines() if line.lower().startswith("location:")]
    location = lines[0].split(":", 1)[1].strip()
    return location if location.startswith("http") else url + location


def put(location, blob):
    path, digest = blob
    joint = "&" if "?" in location else "?"
    return curl("-T", path, "-H", "Content-Type: application/octet-stream", "-o", "/dev/null", f"{location}{joint}digest={digest}")


def finished(processes):
    for process in processes:
        process.communicate()
        assert process.returncode == 0, process.args


def measured(registry, work):
    """Returns wall and CPU seconds of what the server does meanwhile."""
    before, start = cpu(registry.process), time.perf_counter()
    work()
    return time.perf_counter() - start, cpu(registry.process) - before


def trial(kind, large, small):
    with tempfile.TemporaryDirectory(prefix="longshore-bench-") as folder:
        registry = Registry(kind, folder)
        url = f"http://127.0.0.1:{registry.port}"
        try:
            location = begin(url)
            taken = measured(registry, lambda: finished([put(location, large)]))
            locations = [begin(url) for _ in small]
            many = measured(registry, lambda: finished([put(*pair) for pair in zip(locations, small)]))
            blob = f"{url}/v2/bench/blobs/{large[1]}"
            served = measured(registry, lambda: finished([curl("-o", "/dev/null", blob)]))
            return {"take one": taken, "take many": many, "serve one": served}, peak(registry.process)
        finally:
            registry.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--each-mib", type=int, default=50)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="longshore-bench-") as folder:
        large = noise(folder, "large", arguments.mib)
        small = [noise(folder, f"small{at}", arguments.each_mib) for at in range(arguments.clients)]
        runs = {"embedded": [], "docker-registry": []}
        for _ in range(arguments.runs):
            for kind, results in runs.items():
                results.append(trial(kind, large, small))
    for what in ("take one", "take many", "serve one"):
        for at, unit in enumerate(("wall", "cpu")):
            ours, theirs = ([result[what][at] for result, _ in results] for results in runs.values())
            ratios = [our / their for our, their in zip(ours, theirs)]
            print(
                f"{what:9} {unit:4} embedded {statistics.median(ours):6.2f} s"
                f"  docker-registry {statistics.median(theirs):6.2f} s"
                f"  ratio {statistics.median(ratios):.2f} [{min(ratios):.2f}–{max(ratios):.2f}]"
            )
    for kind, results in runs.items():
        print(f"peak memory of {kind}: {max(peak for _, peak in results):.0f} MiB")


if __name__ == "__main__":
    main()
