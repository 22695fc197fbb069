"""A server that does not answer may answer later: one line, and the status at which a launcher tries again."""

import asyncio
import errno
import os
import socket

import aiohttp
import pytest
import requests

from vdit.command.exit_status import STORAGE
from vdit.io.storage.failures import as_user_error
from vdit.io.storage.retry import is_transient


def raised(function, *arguments) -> BaseException:
    with pytest.raises(OSError) as caught:
        function(*arguments)
    return caught.value


async def _ask(url: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(url):
        pass


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.parametrize("ask", [requests.get, lambda url: asyncio.run(_ask(url))], ids=["requests", "aiohttp"])
@pytest.mark.parametrize("host", ["no-host.invalid", "127.0.0.1"])
def test_a_server_that_cannot_be_reached(ask, host):
    error = raised(ask, f"http://{host}:{closed_port()}/x")
    assert is_transient(error)
    line = as_user_error(error)
    assert line and line.status == STORAGE and "is its storage there?" in str(line)


@pytest.mark.parametrize(
    "number", [errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.EIO, socket.EAI_NONAME]
)
def test_numbers_that_may_pass(number):
    assert is_transient(OSError(number, "x"))


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOSPC, errno.EACCES])
def test_numbers_that_do_not_pass(number):
    assert not is_transient(OSError(number, os.strerror(number)))
