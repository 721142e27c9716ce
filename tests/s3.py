"""Object stores on this machine's loopback, and what can go wrong on the way to them."""

import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
import time
import urllib.request

BUCKET = "bucket"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing"}


class Server:
    """Moto's S3 server, with a bucket, behind a proxy that can be told to refuse, or to keep people waiting.

    It holds everything in memory, and is gone after the block.
    """

    def __enter__(self):
        self.port = port = free_port()
        log = subprocess.DEVNULL
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log
        )
        for _ in range(300):
            with contextlib.suppress(OSError):
                asked = urllib.request.Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT")
                urllib.request.urlopen(asked, timeout=5).close()
                break
            time.sleep(0.1)
        else:
            raise RuntimeError("moto's server does not answer")
        self.proxy = Proxy(port)
        return self

    def __exit__(self, *_):
        self.proxy.close()
        self.process.kill()
        self.process.wait()

    def url(self, name):
        """The URL of a folder in the bucket, by way of the proxy."""
        return f"s3://{BUCKET}/{name}?endpoint_override=127.0.0.1:{self.proxy.port}&scheme=http&region=us-east-1"


class GoogleServer:
    """An emulator of Google's storage, with a bucket. It holds everything in memory, and is gone after the block."""

    def __enter__(self):
        from gcp_storage_emulator.server import create_server

        self.port = free_port()
        self.server = create_server("127.0.0.1", self.port, in_memory=True, default_bucket=BUCKET)
        self.server.start()
        return self

    def __exit__(self, *_):
        self.server.stop()

    def url(self, name):
        """The URL of a folder in the bucket."""
        return f"gs://anonymous@{BUCKET}/{name}?scheme=http&endpoint_override=127.0.0.1:{self.port}"


class Proxy:
    """Passes connections on to a port. `mode`: "pass", "refuse", or "hang", where nothing comes through meanwhile."""

    def __init__(self, target):
        self.target, self.mode, self.num_connections = target, "pass", 0
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.open = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        """End all connections there are."""
        for one in list(self.open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self):
        """Stop listening."""
        self.mode = "refuse"
        self.listening.close()
        self.cut()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listening.accept()
                self.num_connections += 1
                if self.mode == "refuse":
                    client.close()
                else:
                    threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client):
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self.target)) as server:
            ends = {client: server, server: client}
            self.open |= set(ends)
            try:
                while True:
                    if self.mode == "hang":
                        time.sleep(0.05)
                        continue
                    for end in select.select(ends, [], [], 0.1)[0]:
                        data = end.recv(2**16)
                        if not data:
                            return
                        ends[end].sendall(data)
            finally:
                self.open -= set(ends)


def free_port():
    """Return a port of the loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def credentials(monkeypatch):
    """Give this process what S3 asks for, and nothing of the user's own."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in {**CREDENTIALS, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
