"""Runs the writer, or reads back what it wrote, as a process of its own.

So a test that blocks its own process does not delay the writer, and the writer can run in the network of the
node.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import ssl
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import msgspec

from etcd_operator.client import MemberClient, client_context
from etcd_operator.etcd import Credentials, Endpoint
from tests.etcd.history import History, encode
from tests.etcd.read_back import read_back
from tests.etcd.writer import CLIENTS, Load, Writer

#: The files of `--tls`, as the Secret for clients of coreos/etcd-operator names them.
TLS_FILES = ("etcd-client-ca.crt", "etcd-client.crt", "etcd-client.key")


def main() -> None:
    """Runs the command line."""
    arguments = _parser().parse_args()
    context = _context(arguments.tls)
    if arguments.command == "write":
        sys.exit(asyncio.run(_write(arguments, context)) or 0)
    history = History.load(arguments.history)
    asyncio.run(_read_back(history, dict(arguments.member), context, arguments.contents))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.etcd", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    write = commands.add_parser("write", help="write and read until SIGTERM or until the cluster stalls")
    write.add_argument("--endpoint", type=_endpoint, required=True, help="HOST:PORT=SERVER_NAME")
    write.add_argument("--prefix", required=True, help="the first part of all keys")
    write.add_argument("--stall", type=float, required=True, help="seconds without an acknowledged write")
    read = commands.add_parser("read-back", help="read all keys of a history from every member")
    read.add_argument("--member", type=_member, required=True, action="append", help="NAME@ENDPOINT")
    read.add_argument("--contents", type=Path, required=True, help="the file for what the members have")
    for command in (write, read):
        command.add_argument("--history", type=Path, required=True, help="the file with the history")
        command.add_argument("--tls", type=Path, help=f"a folder with {', '.join(TLS_FILES)}")
    return parser


def described(endpoint: Endpoint) -> str:
    """Returns an endpoint as the command line expects it."""
    return f"{endpoint.host}:{endpoint.port}={endpoint.server_name}"


def _endpoint(text: str) -> Endpoint:
    address, _, name = text.partition("=")
    host, _, port = address.rpartition(":")
    return Endpoint(host, name, int(port))


def _member(text: str) -> tuple[str, Endpoint]:
    name, _, rest = text.partition("@")
    return name, _endpoint(rest)


def _context(folder: Path | None) -> ssl.SSLContext | None:
    if folder is None:
        return None
    ca, certificate, key = ((folder / name).read_text() for name in TLS_FILES)
    return client_context(Credentials(ca, certificate, key))


async def _write(arguments: argparse.Namespace, context: ssl.SSLContext | None) -> str:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    load = Load(arguments.prefix, stall=arguments.stall)
    with ExitStack() as closing:
        # Without a buffer, so that a test sees each acknowledgement.
        sink = closing.enter_context(open(arguments.history, "wb", buffering=0))  # noqa: ASYNC230
        clients = [MemberClient(arguments.endpoint, context) for _ in range(CLIENTS)]
        for client in clients:
            closing.callback(client.close)
        return await Writer(load, clients, lambda entry: sink.write(encode(entry))).run(stop)


async def _read_back(
    history: History, members: Mapping[str, Endpoint], context: ssl.SSLContext | None, file: Path
) -> None:
    with ExitStack() as closing:
        clients = {name: MemberClient(each, context) for name, each in members.items()}
        for client in clients.values():
            closing.callback(client.close)
        contents = await read_back(history, clients)
    await asyncio.to_thread(file.write_bytes, msgspec.json.encode(contents))


if __name__ == "__main__":
    main()
