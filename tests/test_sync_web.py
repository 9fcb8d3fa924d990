"""The web apps of docs/sync.md, each behind the real server of its framework."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from omni_worker.nats_server import NatsServer, die_with_parent
from omni_worker.sync import SyncBus

from .docs.blocks import BLOCKS
from .ports import free_port
from .processes.support import clean_environment
from .waiting import wait_until

SETTINGS = """
DEBUG = True
SECRET_KEY = "for this test"
ROOT_URLCONF = "project.urls"
INSTALLED_APPS = ["shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "orders.sqlite"}}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
"""
MODELS = """
from django.db import models

class Order(models.Model):
    customer = models.CharField(max_length=20)
"""
URLS = """
from django.urls import path
from django.db import transaction
from shop.views import order

@transaction.atomic
def rolled_back(request):
    order(request)
    raise ValueError("the customer left")

urlpatterns = [path("orders", order), path("lost", rolled_back)]
"""


def write_block(folder: Path, title: str, file: str) -> None:
    """Write the code that the page shows."""
    [block] = [one for one in BLOCKS if (one.file, one.title) == ("docs/sync.md", title)]
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.code)


@contextmanager
def serving(folder: Path, nats_server: NatsServer, *command: str, port: int) -> Iterator[Path]:
    """Run a server until it listens, and end it afterwards; its log is what this yields."""
    log = folder / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,
            env=clean_environment() | {
                "NATS_URL": nats_server.url, "DJANGO_SETTINGS_MODULE": "project.settings",
            },
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=die_with_parent(),
        )  # fmt: skip
    try:
        wait_until(
            lambda: server.poll() is not None or listens(port), timeout=20, what="the server"
        )
        yield log
    finally:
        server.terminate()
        server.wait(10)


def listens(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/nothing", timeout=5)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def post(port: int, path: str, body: bytes, kind: str) -> int:
    """Send it, and return the status."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/{path}", data=body, headers={"Content-Type": kind}
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture
def bus(nats_server: NatsServer) -> Iterator[SyncBus]:
    with SyncBus(nats_server.url) as bus:
        yield bus


def last_sequence(bus: SyncBus) -> int:
    """The number of events before one that is published now."""
    return bus.publish("custom.order.counted").sequence - 1


def test_a_flask_view_publishes(tmp_path: Path, nats_server: NatsServer, bus: SyncBus) -> None:
    write_block(tmp_path, "flask_app.py", "flask_app.py")
    port = free_port()
    command = ("flask", "--app", "flask_app:flask", "run", "--port", str(port))

    with serving(tmp_path, nats_server, *command, port=port) as log:
        status = [post(port, "orders", b'{"n": 1}', "application/json") for _ in range(3)]

    assert status == [200, 200, 200], log.read_text()
    assert last_sequence(bus) == 3


def test_a_django_view_publishes_after_its_commit_and_not_after_a_rollback(
    tmp_path: Path, nats_server: NatsServer, bus: SyncBus
) -> None:
    for file, source in (
        ("project/settings.py", SETTINGS), ("project/urls.py", URLS), ("shop/models.py", MODELS),
        ("project/__init__.py", ""), ("shop/__init__.py", ""),
    ):  # fmt: skip
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(source)
    write_block(tmp_path, "Django", "shop/views.py")
    subprocess.run(
        [sys.executable, "-m", "django", "migrate", "--run-syncdb", "-v", "0"],
        cwd=tmp_path,
        env=clean_environment() | {
            "DJANGO_SETTINGS_MODULE": "project.settings", "PYTHONPATH": str(tmp_path),
        },
        check=True,
    )  # fmt: skip
    port, form = free_port(), "application/x-www-form-urlencoded"
    command = ("django", "runserver", "--noreload", str(port))

    with serving(tmp_path, nats_server, *command, port=port) as log:
        lost = post(port, "lost", b"customer=bob", form)
        placed = post(port, "orders", b"customer=ana", form)

    assert (lost, placed) == (500, 200), log.read_text()
    assert "the customer left" in log.read_text()
    assert bus.publish("custom.order.placed", id="order-1").duplicate
    assert last_sequence(bus) == 1
