#!/usr/bin/env python3
"""What must hold in front of and behind the balancer. Started by tests/balancer.sh."""

import argparse
import base64
import http.client
import json
import os
import signal
import socket
import struct
import time

DEADLINE_S = 60
HOST = "127.0.0.1"


def check(what, truth, shown=""):
    if not truth:
        raise SystemExit(f"balancer: {what} {shown}")


def get(port, path, headers=None, method="GET", body=None):
    connection = http.client.HTTPConnection(HOST, port, timeout=DEADLINE_S)
    connection.request(method, path, body=body, headers=headers or {})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer, text


class WebSocket:
    """The least of a client: text frames, one at a time."""

    def __init__(self, port, before=b"", headers=()):
        self.socket = socket.create_connection((HOST, port), timeout=DEADLINE_S)
        self.read = b""
        if before:
            self.socket.sendall(before)
            self.head()
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            "GET /v1/ws HTTP/1.1",
            f"Host: {HOST}:{port}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Protocol: caffis.chat.v1",
            f"Origin: http://{HOST}:{port}",
            *headers,
        ]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.status = self.head().split(b" ")[1].decode()

    def more(self):
        chunk = self.socket.recv(65536)
        check("a WebSocket was cut off", chunk)
        self.read += chunk

    def take(self, length):
        while len(self.read) < length:
            self.more()
        taken, self.read = self.read[:length], self.read[length:]
        return taken

    def head(self):
        while b"\r\n\r\n" not in self.read:
            self.more()
        head, self.read = self.read.split(b"\r\n\r\n", 1)
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                self.take(int(line.split(b":")[1]))
        return head

    def tell(self, value):
        text = json.dumps(value).encode()
        mask = os.urandom(4)
        length = struct.pack("!B", 0x80 | len(text)) if len(text) < 126 else struct.pack("!BH", 0xFE, len(text))
        masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(text))
        self.socket.sendall(b"\x81" + length + mask + masked)

    def frame(self):
        """The next frame: a value, or the code of a close."""
        first, length = self.take(2)
        if length == 126:
            (length,) = struct.unpack("!H", self.take(2))
        payload = self.take(length)
        if first & 15 == 8:
            return struct.unpack("!H", payload[:2])[0]
        return json.loads(payload)

    def sign_in(self, token):
        check("an upgrade was not answered 101", self.status == "101", self.status)
        self.tell({"id": 1, "type": "auth", "data": {"token": token}})
        ready = self.frame()
        check("auth was not answered ready", ready["type"] == "ready", ready)
        return ready["data"]["node"]


def metric(port, name):
    _, text = get(port, "/metrics")
    return sum(int(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name + "{"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--balancer", type=int)
    parser.add_argument("--nodes", type=int, nargs=2)
    parser.add_argument("--first-node-pid", type=int)
    parser.add_argument("--node-logs", nargs=2)
    parser.add_argument("--access-log")
    asked = parser.parse_args()
    port = asked.balancer

    answer, page = get(port, "/")
    check("the page is not served", answer.status == 200 and "<!doctype html>" in page.lower(), page[:200])
    check("the page has no policy", "default-src 'none'" in answer.getheader("content-security-policy", ""))
    for path, status in [("/healthz", 200), ("/v1/asyncapi.json", 200), ("/metrics", 404), ("/readyz", 404), ("/x", 404)]:
        answer, _ = get(port, path)
        check(f"{path} was answered {answer.status}", answer.status == status)

    body = json.dumps({"name": "Ada"})
    given = {"content-type": "application/json", "x-request-id": "from-outside-7"}
    answer, text = get(port, "/v1/demo/login", given, "POST", body)
    check("no login", answer.status == 200, text)
    check("a request's id was lost", answer.getheader("x-request-id") == "from-outside-7")
    token = json.loads(text)["token"]
    answer, _ = get(port, "/healthz")
    check("a request was given no id", len(answer.getheader("x-request-id", "")) == 32)
    answer, _ = get(port, "/healthz", {"x-request-id": 'no"id'})
    check("an id that is none was kept", len(answer.getheader("x-request-id", "")) == 32)
    logs = "".join(open(path, encoding="utf-8").read() for path in asked.node_logs)
    check("the node's log does not name the request", "from-outside-7" in logs)

    idle = WebSocket(port)
    idle.sign_in(token)
    idle_since = time.monotonic()
    talkers = [WebSocket(port) for _ in range(40)]
    nodes = [talker.sign_in(token) for talker in talkers]
    check("all went to one node", set(nodes) == {"chat-1", "chat-2"}, nodes)

    # The node itself, without a balancer: upgraded after plain requests, also when all comes at once.
    plain = f"GET /healthz HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
    WebSocket(asked.nodes[0], before=plain).sign_in(token)

    # And through it: it keeps its connections to the nodes, and upgrades them.
    began = time.monotonic()
    tries = 0
    while sum(metric(node, "caffis_driver_joined_total") for node in asked.nodes) < 2:
        check("no upgrade came over a connection used before", time.monotonic() - began < DEADLINE_S)
        for _ in range(4):
            get(port, "/healthz")
        WebSocket(port).sign_in(token)
        tries += 1

    # Nothing was said for longer than a plain request may take: the node's ping comes through.
    ping = idle.frame()
    quiet = time.monotonic() - idle_since
    check("an idle WebSocket got something else than a ping", ping == {"type": "ping"}, ping)
    check("the ping came before the silence that it is for", quiet > 20, quiet)
    idle.tell({"type": "pong"})

    # One node drains: its clients are told, and whoever comes finds the other.
    os.kill(asked.first_node_pid, signal.SIGTERM)
    codes = set()
    for talker, node in zip(talkers, nodes):
        if node == "chat-1":
            # Events and pings first, then the close.
            while not isinstance(frame := talker.frame(), int):
                pass
            codes.add(frame)
        talker.socket.close()
    check("the node that drains told something else than 4102", codes == {4102}, codes)
    for _ in range(20):
        node = WebSocket(port).sign_in(token)
        check("a node that is gone answered", node == "chat-2", node)
        answer, _ = get(port, "/healthz")
        check("a request failed while a node was gone", answer.status == 200, answer.status)

    with open(asked.access_log, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    check("the balancer logged no request ids", lines and all(line["request_id"] for line in lines))
    print(
        f"balancer: page, requests and WebSockets pass; two of {tries} upgrades or more came over used connections; "
        f"an idle one heard a ping after {quiet:.0f} s; a drain went unnoticed; {len(lines)} lines of log"
    )


main()
