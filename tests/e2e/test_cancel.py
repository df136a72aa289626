# test_cancel.py - closing execute_async kills the process in the guest.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import socket
import struct

import pytest
from support import alive_in_guest, wait_for


def start_sleepers(stream):
    """Pids of a shell, its child, and a child in a session of its own."""
    text = ""
    while text.count("\n") < 3:
        text += next(stream)[1]
    return [int(pid) for pid in text.split()]


LINE = (
    "sleep 600 & echo $!; setsid sleep 600 & echo $!; echo $$; "
    "trap '' TERM HUP INT PIPE; wait"
)


def test_closing_kills_every_process(sandbox):
    stream = sandbox.stream(LINE)
    pids = start_sleepers(stream)
    assert all(alive_in_guest(sandbox, pid) for pid in pids)
    stream.close()
    wait_for(
        lambda: not any(alive_in_guest(sandbox, pid) for pid in pids),
        3,
        "end of the processes",
    )


def test_closing_while_output_floods(sandbox):
    stream = sandbox.stream("echo $$; exec yes")
    pid = int(next(stream)[1].split()[0])
    stream.close()
    wait_for(lambda: not alive_in_guest(sandbox, pid), 3, "end of `yes`")


@pytest.mark.parametrize("how", ["fin", "reset"])
def test_a_client_that_vanishes(api, sandbox, how):
    body = json.dumps({"command": "echo $$ >/root/pid; sleep 600"}).encode()
    head = (
        f"POST /v1/sandboxes/{sandbox.id}/execute_async HTTP/1.1\r\n"
        f"host: x\r\nx-api-key: {api.key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    sandbox.run("rm -f /root/pid", timeout=20)
    connection = socket.create_connection((api.host, api.port), timeout=20)
    connection.sendall(head.encode() + body)
    pid = wait_for(
        lambda: sandbox.run("cat /root/pid 2>&-", timeout=20).stdout.strip(),
        10,
        "start of the command",
    )
    assert alive_in_guest(sandbox, pid)
    if how == "reset":
        linger = struct.pack("ii", 1, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    connection.close()
    wait_for(lambda: not alive_in_guest(sandbox, pid), 3, "end of the command")


def test_the_sandbox_goes_on(sandbox):
    for _ in range(5):
        sandbox.stream("sleep 600").close()
    assert sandbox.run("echo fine", timeout=20).stdout == "fine\n"
