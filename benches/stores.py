#!/usr/bin/env python3
"""Times what has to be rebuilt or can be read once, against skopeo, in turn.

usage: benches/stores.py store [--files N] [--runs N]
       benches/stores.py pass ARCHIVE [--runs N]

`store` makes a podman storage (vfs) with one layer of N small files (50,000) and pushes it: rebuilding from tar-split, at
first alone (`inspect --verify`, MB/s a core), then end to end against `skopeo copy containers-storage:`.
`pass` pushes a plain docker archive as a pipe and as .tar.gz, against skopeo on the plain file; the time to inflate it
(gzip -dc) is shown beside, and what lies on disk at the most besides the registry's own.
Needs target/release/longshore, skopeo and podman; see benches/push.py for what is measured.
"""

import argparse
import io
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time

from push import LONGSHORE, Registry, run


def make_store(folder, files):
    """Makes a storage with one image of one layer; returns its name for both tools, and the layer's size."""
    rootfs = os.path.join(folder, "rootfs.tar")
    with tarfile.open(rootfs, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for number in range(files):
            # Sizes and contents as in a node_modules: text, all different, 4 KB in the mean.
            content = (f"module {number}\n" * (5 + number * 7919 % 620)).encode()
            info = tarfile.TarInfo(f"app/{number % 500}/file-{number}.js")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    size = os.path.getsize(rootfs)
    root, runroot = os.path.join(folder, "root"), os.path.join(folder, "run")
    podman = ["podman", "--root", root, "--runroot", runroot, "--storage-driver", "vfs"]
    subprocess.run([*podman, "import", "-q", rootfs, "localhost/many:1"], check=True, stdout=subprocess.DEVNULL)
    os.unlink(rootfs)
    return f"containers-storage:[vfs@{root}+{runroot}]localhost/many:1", size


def measure(name, command, rows, registry_kind="embedded", stdin=None, watch=None):
    """Runs one push against a fresh registry; `{}` in the command is where it goes."""
    folder = tempfile.mkdtemp(prefix="longshore-bench-")
    registry = Registry(registry_kind, folder)
    environment = dict(os.environ, LONGSHORE_CACHE_DIR=os.path.join(folder, "cache"))
    command = [part.replace("{}", f"127.0.0.1:{registry.port}/bench:1") for part in command]
    peak, done = [0], threading.Event()

    def look():
        cache = os.path.join(folder, "cache")
        while not done.wait(0.01):
            size = sum(
                os.lstat(os.path.join(at, file)).st_blocks * 512
                for at, _, names in os.walk(cache)
                for file in names
                if os.path.lexists(os.path.join(at, file))
            )
            peak[0] = max(peak[0], size)

    watcher = threading.Thread(target=look) if watch else None
    if watcher:
        watcher.start()
    try:
        if stdin:
            command = ["bash", "-c", f"cat {stdin} | {' '.join(command)}"]
        rows.setdefault(name, []).append((*run(command, environment), peak[0]))
    finally:
        done.set()
        if watcher:
            watcher.join()
            rows[name][-1] = (*rows[name][-1][:3], peak[0])
        registry.stop()
        shutil.rmtree(folder, ignore_errors=True)


def show(rows, base):
    for name, runs in rows.items():
        wall, cpu, peak, disk = (statistics.median(column) for column in zip(*runs))
        low, high = min(row[0] for row in runs), max(row[0] for row in runs)
        extra = f"  disk {disk / 1e6:6.1f} MB" if disk else ""
        print(f"{name:22} wall {wall:7.3f} s [{low:.3f}–{high:.3f}]  cpu {cpu:6.2f} s  peak {peak:5.0f} MiB{extra}")
    for name in rows:
        if name != base:
            ratios = sorted(theirs[0] / ours[0] for ours, theirs in zip(rows[name], rows[base]))
            print(f"{base} / {name}, pair by pair: median {statistics.median(ratios):.2f} [{ratios[0]:.2f}–{ratios[-1]:.2f}]")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["store", "pass"])
    parser.add_argument("archive", nargs="?")
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    skopeo = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false"]
    rows = {}
    if arguments.what == "store":
        folder = tempfile.mkdtemp(prefix="longshore-bench-store-")
        try:
            source, size = make_store(folder, arguments.files)
            alone = [run([LONGSHORE, "inspect", "--verify", "--json", source], dict(os.environ)) for _ in range(arguments.runs)]
            cpu = statistics.median(row[1] for row in alone)
            print(f"rebuilding and hashing {size / 1e6:.0f} MB of {arguments.files} files: {size / 1e6 / cpu:.0f} MB/s a core")
            for _ in range(arguments.runs):
                measure("longshore", [LONGSHORE, "push", "-q", source, "{}"], rows)
                measure("skopeo", [*skopeo, source, "docker://{}"], rows)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        show(rows, "skopeo")
        return
    if not arguments.archive:
        sys.exit("which archive?")
    packed = tempfile.NamedTemporaryFile(prefix="longshore-bench-", suffix=".tar.gz")
    subprocess.run(["gzip", "-1", "-c", arguments.archive], check=True, stdout=packed)
    start = time.perf_counter()
    subprocess.run(["gzip", "-dc", packed.name], check=True, stdout=subprocess.DEVNULL)
    print(f"gzip -dc alone: {time.perf_counter() - start:.2f} s")
    for _ in range(arguments.runs):
        measure("longshore, pipe", [LONGSHORE, "push", "-q", "-", "{}"], rows, stdin=arguments.archive, watch=True)
        measure("longshore, .tar.gz", [LONGSHORE, "push", "-q", packed.name, "{}"], rows, watch=True)
        measure("skopeo, plain", [*skopeo, f"docker-archive:{arguments.archive}", "docker://{}"], rows)
    show(rows, "skopeo, plain")


if __name__ == "__main__":
    main()
