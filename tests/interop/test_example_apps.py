"""crdt-sync in other people's services: examples/fastapi and examples/django, as their READMEs start them, with stock clients."""

import asyncio
import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.support.api import Answer, request
from tests.support.clients import NodeClients
from tests.support.raw import RawClient, Refused
from tests.support.server import free_port

EXAMPLES = Path(__file__).parents[2] / "examples"
READMES = {"fastapi": "examples/fastapi/README.md", "django": "examples/django/README.md"}
PREPARE = """
from service.asgi import application
from django.core.management import call_command
call_command("migrate", verbosity=0)
call_command("loaddata", "demo", verbosity=0)
"""
UPGRADE = (
    b"GET /sync/trip-1 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nCookie: %b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
MUSEUM = "\nHave you been to the museum?"


class Service:
    """One of the examples, running under uvicorn."""

    def __init__(self, name: str, application: str, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"ws://127.0.0.1:{self.port}"
        self._log = folder / f"{name}.log"
        self._env = {key: value for key, value in os.environ.items() if not key.startswith("CRDT_SYNC_")} | {
            "CRDT_SYNC_DATABASE_URL": f"sqlite:///{folder / 'documents.db'}",
            "DJANGO_DATABASE": str(folder / "django.db"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.name = name
        self.arguments = (application, *options)
        self._folder = EXAMPLES / name
        self._process: subprocess.Popen[bytes] | None = None

        self.people: dict[str, Person] = {}

    def run(self, code: str) -> None:
        """Run some Python as in the example's folder."""
        subprocess.run([sys.executable, "-c", code], cwd=self._folder, env=self._env, check=True)

    async def person(self, name: str) -> "Person":
        """Somebody who is signed in."""
        if name not in self.people:
            person = Person(self)
            assert await person.sign_in(name) == 200
            self.people[name] = person
        return self.people[name]

    def start(self) -> None:
        """Start, and return once it serves."""
        command = [sys.executable, "-m", "uvicorn", *self.arguments, "--port", str(self.port)]
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                command, cwd=self._folder, env=self._env, stdout=output, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + 20
        while "running on" not in self.log:
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)

    def stop(self) -> None:
        """Press Ctrl-C, and wait for the end."""
        assert self._process is not None
        self._process.terminate()
        assert self._process.wait(15) in (0, -15)
        assert "Application shutdown complete" in self.log
        assert "Traceback" not in self.log, self.log

    @property
    def log(self) -> str:
        """What it has printed."""
        return self._log.read_text()


class Person:
    """Somebody with a browser: it keeps cookies."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.cookies: dict[str, str] = {}

    @property
    def cookie(self) -> str:
        """What the browser sends along."""
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

    async def ask(self, method: str, path: str, **fields: str) -> Answer:
        """Send a request, with these fields as JSON."""

        def ask() -> Answer:
            connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=15)
            with contextlib.closing(connection):
                headers = {"Cookie": self.cookie, "X-CSRFToken": self.cookies.get("csrftoken", "")}
                if fields:
                    headers["Content-Type"] = "application/json"
                connection.request(method, path, json.dumps(fields) if fields else None, headers)
                answer = connection.getresponse()
                for name, value in answer.getheaders():
                    if name.lower() == "set-cookie":
                        found = re.match(r"(\w+)=([^;]*)", value)
                        assert found is not None
                        self.cookies[found[1]] = found[2]
                return Answer(answer.status, dict(answer.getheaders()), answer.read())

        return await asyncio.to_thread(ask)

    async def sign_in(self, name: str, password: str | None = None) -> int:
        """Begin a session; returns the status."""
        await self.ask("GET", "/login")
        return (await self.ask("POST", "/login", name=name, password=password or f"{name}'s password")).status


@pytest.fixture(scope="module")
def fastapi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service("fastapi", "app:app", tmp_path_factory.mktemp("fastapi"), "--ws", "app:websockets")
    service.start()
    yield service
    service.stop()


@pytest.fixture(scope="module")
def django(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service("django", "service.asgi:application", tmp_path_factory.mktemp("django"))
    # What the README has `manage.py migrate` and `manage.py loaddata demo` do, in one process.
    service.run(PREPARE)
    service.start()
    yield service
    service.stop()


@pytest.fixture(params=["fastapi", "django"])
def service(request: pytest.FixtureRequest) -> Service:
    found: Service = request.getfixturevalue(request.param)
    return found


async def test_people_who_signed_in_edit_the_service_edits_too_and_what_they_wrote_is_found(
    service: Service, clients: NodeClients
) -> None:
    ann, bob = await service.person("ann"), await service.person("bob")
    anns = await clients.create(f"{service.url}/sync", "trip-1", cookie=ann.cookie)
    bobs = await clients.create(f"{service.url}/sync", "trip-1", cookie=bob.cookie)

    await anns.insert(0, "Rome in spring")
    await bobs.wait(text="Rome in spring")
    assert (await ann.ask("POST", "/trips/1/suggestions")).status == 200
    await asyncio.gather(*(one.wait(text=f"Rome in spring{MUSEUM}") for one in (anns, bobs)))
    await anns.confirm()

    async with asyncio.timeout(10):
        while (await ann.ask("GET", "/search?q=museum")).json not in (["1"], [1]):
            await asyncio.sleep(0.1)
    assert (await ann.ask("GET", "/search?q=moscow")).json == []


async def test_who_may_do_what_is_the_services_business(service: Service, clients: NodeClients) -> None:
    nobody, ann = Person(service), await service.person("ann")
    assert await nobody.sign_in("ann", "a guess") == 403

    for room, cookie, status in (
        ("trip-1", nobody.cookie, 401),
        ("trip-1", "session=forged; sessionid=forged", 401),
        ("trip-2", ann.cookie, 403),
        ("sync/trip-1", ann.cookie, 403),
    ):
        with pytest.raises(Refused) as refused:
            await RawClient.connect(service.url, f"sync/{room}", headers={"Cookie": cookie})
        assert refused.value.status == status, room
    assert (await ann.ask("POST", "/trips/2/suggestions")).status == 403


async def test_another_sites_page_gets_nowhere_with_the_sessions_cookie(service: Service) -> None:
    ann = await service.person("ann")
    evil = {"Cookie": ann.cookie, "Origin": "https://evil.example"}
    own = {"Cookie": ann.cookie, "Origin": f"http://127.0.0.1:{service.port}"}

    with pytest.raises(Refused) as refused:
        await RawClient.connect(service.url, "sync/trip-1", headers=evil)
    await (await RawClient.connect(service.url, "sync/trip-1", headers=own)).close()

    assert (refused.value.status, refused.value.body) == (403, b"origin not allowed\n")


async def test_the_api_and_the_pages_are_below_the_path_of_the_mount(service: Service, clients: NodeClients) -> None:
    ann = await service.person("ann")
    client = await clients.create(f"{service.url}/sync", "trip-1", cookie=ann.cookie)
    await client.insert(0, "x")
    await client.confirm()
    cookie = {"Cookie": ann.cookie}

    room = await request(service.url, "GET", "/sync/api/v1/rooms/trip-1", headers=cookie)
    text = await request(service.url, "GET", "/sync/api/v1/rooms/trip-1/document?format=json", headers=cookie)
    welcome = await request(service.url, "GET", "/sync/")

    assert (room.status, room.json["name"], room.json["open"]) == (200, "trip-1", True)
    assert text.status == 200
    assert f'"{service.url}/sync", "trip-1"'.encode() in welcome.body
    assert (await request(service.url, "GET", "/sync/health")).body == b"ok\n"
    assert (await request(service.url, "GET", "/api/v1/rooms", headers=cookie)).status == 404
    assert (await request(service.url, "GET", "/sync/api/v1/rooms")).status == 401


async def test_a_view_that_is_not_async_edits_too(django: Service, clients: NodeClients) -> None:
    bob = await django.person("bob")
    client = await clients.create(f"{django.url}/sync", "trip-2", cookie=bob.cookie)

    assert (await bob.ask("POST", "/trips/2/titles", title="Prague")).status == 204

    await client.wait(text="Prague\n")


async def test_a_services_own_websockets_work_beside_the_fast_ones(fastapi: Service) -> None:
    async with connect(f"{fastapi.url}/echo") as socket:
        await socket.send("hello")

        assert await socket.recv() == "hello"


async def test_a_service_chooses_how_its_websockets_are_served(fastapi: Service, django: Service) -> None:
    heads = []
    for service in (fastapi, django):
        ann = await service.person("ann")
        client = await RawClient.open_socket(service.port)
        await client.send_bytes(UPGRADE % (service.port, ann.cookie.encode()))
        heads.append(await client.read_head())
        client.abort()

    assert [head.split("\r\n")[0] for head in heads] == ["HTTP/1.1 101 Switching Protocols"] * 2
    assert ["uvicorn" in head.lower() for head in heads] == [False, True]


async def test_the_commands_of_the_readme_do_what_it_says(service: Service, tmp_path: Path) -> None:
    readme = (EXAMPLES.parent / READMES[service.name]).read_text()
    blocks = re.findall(r"```sh\n(.*?)```", readme, re.DOTALL)
    start, commands, look = [block.replace("127.0.0.1:8000", f"127.0.0.1:{service.port}") for block in blocks]
    assert f"uvicorn {' '.join(service.arguments)}\n" in start

    done = await in_shell(commands, tmp_path)
    async with asyncio.timeout(10):
        while "1" not in (found := await in_shell(look, tmp_path)):
            await asyncio.sleep(0.1)

    assert '"user":' in done
    assert "a museum" in done
    assert done.rstrip().endswith("Have you been to the museum?")
    assert json.loads(found) in (["1"], [1])


async def in_shell(commands: str, folder: Path) -> str:
    """What commands print; each has to succeed."""
    shell = await asyncio.create_subprocess_exec(
        "bash", "-ec", commands.replace("curl ", "curl -fsS "), cwd=folder, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await shell.communicate()
    assert shell.returncode == 0
    return printed.decode()
