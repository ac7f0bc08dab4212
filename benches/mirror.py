#!/usr/bin/env python3
"""Times `push --all` of many images that share layers against a loop of `skopeo copy`, over a slow line.

usage: benches/mirror.py WAN [--images N] [--runs N] [--rtt MS] [--mbit N]

WAN is a program `WAN LISTEN_PORT TARGET_PORT RTT_MS MBIT` that forwards connections as a far line would. The images lie
in one OCI layout: a base of 20 MB for all, one of three middles of 5 MB, and 1 MB of their own each. Every run starts two
empty docker-registries, one for each side. Prints wall seconds, the ratio, and the bytes that went up.
Needs target/release/longshore, skopeo and docker-registry.
"""

import argparse
import hashlib
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time

from push import LONGSHORE, Registry, free_port, run

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


class Layout:
    """An OCI layout in the making. Its layers are noise, which nobody decodes."""

    def __init__(self, folder):
        self.folder, self.manifests = folder, []
        os.makedirs(os.path.join(folder, "blobs", "sha256"))
        self.random = random.Random(7)

    def blob(self, media_type, data):
        digest = hashlib.sha256(data).hexdigest()
        with open(os.path.join(self.folder, "blobs", "sha256", digest), "wb") as file:
            file.write(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def layer(self, size):
        return self.blob(LAYER, self.random.randbytes(size))

    def image(self, name, layers):
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": {"name": name}},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
        }
        config = self.blob(CONFIG, json.dumps(config).encode())
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
        manifest = self.blob(MANIFEST, json.dumps(manifest).encode())
        manifest["annotations"] = {"org.opencontainers.image.ref.name": name}
        self.manifests.append(manifest)

    def close(self):
        with open(os.path.join(self.folder, "oci-layout"), "w", encoding="utf-8") as file:
            json.dump({"imageLayoutVersion": "1.0.0"}, file)
        with open(os.path.join(self.folder, "index.json"), "w", encoding="utf-8") as file:
            json.dump({"schemaVersion": 2, "manifests": self.manifests}, file)


class Line:
    """A far line to a registry."""

    def __init__(self, arguments, registry):
        self.port = free_port()
        self.process = subprocess.Popen(
            [sys.executable, arguments.wan]
            + [str(value) for value in (self.port, registry.port, arguments.rtt, arguments.mbit)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        time.sleep(0.5)

    def close(self):
        """Returns how many bytes went up."""
        self.process.terminate()
        counts = re.findall(r"'bytes': (\d+)", self.process.communicate()[0])
        return int(counts[-1]) if counts else 0


def timed(arguments, folder, commands):
    registry = Registry("docker-registry", folder)
    line = Line(arguments, registry)
    environment = dict(os.environ, HOME=folder)
    start = time.perf_counter()
    for command in commands(f"127.0.0.1:{line.port}"):
        run(command, environment)
    wall = time.perf_counter() - start
    sent = line.close()
    registry.stop()
    return wall, sent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wan")
    parser.add_argument("--images", type=int, default=30)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rtt", type=float, default=50)
    parser.add_argument("--mbit", type=float, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(os.path.join(folder, "layout"))
        base, middles = layout.layer(20 << 20), [layout.layer(5 << 20) for _ in range(3)]
        names = [f"team/app{at}:1" for at in range(arguments.images)]
        for at, name in enumerate(names):
            layout.image(f"registry.example.com/{name}", [base, middles[at % 3], layout.layer(1 << 20)])
        layout.close()

        def ours(host):
            return [[LONGSHORE, "push", "--all", layout.folder, f"{host}/mirror"]]

        def theirs(host):
            source = f"oci:{layout.folder}:registry.example.com/"
            copy = ["skopeo", "copy", "-q", "--dest-tls-verify=false"]
            return [copy + [source + name, f"docker://{host}/mirror/{name}"] for name in names]

        ratios = []
        for _ in range(arguments.runs):
            with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
                wall, sent = timed(arguments, one, ours)
                peer, peers = timed(arguments, other, theirs)
            ratios.append(wall / peer)
            print(
                f"longshore {wall:6.2f} s, {sent / 1e6:6.1f} MB   skopeo {peer:6.2f} s, {peers / 1e6:6.1f} MB"
                f"   ratio {wall / peer:.2f}",
                flush=True,
            )
        print(f"median of the ratios: {statistics.median(ratios):.2f}")


main()
