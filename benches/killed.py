#!/usr/bin/env python3
"""Kills pushes at random moments and runs them again until they are done; counts what was sent.

usage: benches/killed.py SOURCE [--images N] [--kills N] [--registry embedded|COMMAND] [--seed N]
                         [--compression HOW] [--chunk-size MIB]

Every image goes into a fresh repository of one registry, through a proxy that counts the bytes of clients. Each
run gets SIGKILL after a random time, the later ones a longer one, until one is left alone and succeeds, or has been
killed so many times. Then skopeo copies the image out, and must find the digest that was printed. In all no more may be
sent than the image's blobs and, for every kill, one chunk (60 MiB where it may grow) of each upload in flight; but
distribution before 3.0 disowns an upload whose PATCH broke off, so there it may be all that was sent before each kill.
COMMAND is a registry of that make, such as Debian's docker-registry.
Needs target/release/longshore, docker-registry, skopeo.
"""

import argparse
import hashlib
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

from push import LONGSHORE, Registry, free_port

SLACK = 32 << 20


class Counter:
    """Passes connections on, and counts what clients send."""

    def __init__(self, target):
        self.port, self.sent, self.target = free_port(), 0, target
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(("127.0.0.1", self.target))
            threading.Thread(target=self.pump, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self.pump, args=(server, client, False), daemon=True).start()

    def pump(self, source, sink, counted):
        try:
            while data := source.recv(1 << 18):
                if counted:
                    self.sent += len(data)
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def is_before_3(command):
    """Returns whether a command is distribution of an older make than 3.0."""
    version = subprocess.run([command, "--version"], check=True, capture_output=True, text=True).stdout
    return int(re.search(r"\bv?([0-9]+)\.[0-9]", version).group(1)) < 3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--kills", type=int, default=1000, help="at most so many an image")
    parser.add_argument("--registry", default="docker-registry")
    parser.add_argument("--layers", type=int, default=2, help="of the image, as far as they are in flight at once")
    parser.add_argument("--patience", type=float, default=0.3, help="seconds that the first run lives at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compression", default="keep")
    parser.add_argument("--chunk-size", type=int, metavar="MIB")
    arguments = parser.parse_args()
    dice = random.Random(arguments.seed)
    folder = tempfile.mkdtemp(prefix="longshore-killed-")
    registry = Registry(arguments.registry, folder)
    disowns = arguments.registry != "embedded" and is_before_3(arguments.registry)
    chunk = (arguments.chunk_size or 60) << 20
    kills = worst = total = 0
    try:
        for number in range(arguments.images):
            counter = Counter(registry.port)
            home = os.path.join(folder, f"home-{number}")
            environment = {"PATH": os.environ["PATH"], "HOME": home}
            name = f"image-{number}"
            target = f"127.0.0.1:{counter.port}/{name}:1"
            command = [LONGSHORE, "push", "-q", arguments.source, target, "--compression", arguments.compression]
            if arguments.chunk_size:
                command += ["--chunk-size", f"{arguments.chunk_size}MiB"]
            killed, patience, lost = 0, arguments.patience, 0
            while True:
                before = counter.sent
                process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                alone = killed >= arguments.kills
                try:
                    printed, words = process.communicate(timeout=None if alone else dice.uniform(0.02, patience))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()
                    # What is on its way through the proxy is counted later.
                    sent = counter.sent - before + SLACK
                    lost += sent if disowns else chunk * arguments.layers
                    killed, patience = killed + 1, patience * 1.15
                    continue
                if process.returncode != 0:
                    sys.exit(f"after {killed} kills: {words}")
                break
            digest = printed.strip().rsplit("@", 1)[1]
            back = os.path.join(folder, "back")
            out = ["skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false"]
            subprocess.run([*out, f"docker://127.0.0.1:{registry.port}/{name}:1", f"dir:{back}"], check=True)
            with open(os.path.join(back, "manifest.json"), "rb") as file:
                found = "sha256:" + hashlib.sha256(file.read()).hexdigest()
            size = sum(os.path.getsize(os.path.join(back, file)) for file in os.listdir(back))
            shutil.rmtree(back)
            shutil.rmtree(home, ignore_errors=True)
            # What is left of broken uploads would fill the disk.
            shutil.rmtree(os.path.join(folder, "store", "docker/registry/v2/repositories", name), ignore_errors=True)
            if found != digest:
                sys.exit(f"{name}: {digest} was printed, {found} is there")
            bound = size + lost + (1 << 20)
            if counter.sent > bound:
                sys.exit(f"{name}: {counter.sent} bytes were sent for {size} after {killed} kills")
            kills, total = kills + killed, total + 1
            worst = max(worst, (counter.sent - size) / max(killed, 1))
            print(f"{name}: {killed} kills, {counter.sent / 1e6:.1f} MB sent for {size / 1e6:.1f} MB", flush=True)
        print(f"{total} images right after {kills} kills; at the worst {worst / 1e6:.1f} MB sent again for a kill")
    finally:
        registry.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
