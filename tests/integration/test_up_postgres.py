"""`facegan up --database` on a PostgreSQL that this test starts; its password is nowhere to be read."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from drawn import draw_folder, tiny
from upkeep import Up, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
PASSWORD = "not/to:be@seen"
QUOTED = "not%2Fto%3Abe%40seen"


def binaries() -> Path:
    """Where initdb and postgres lie: Debian keeps them off PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    assert found or on_path, "PostgreSQL is not installed: tests/integration/prepare.sh does it"
    return (found[-1] if found else Path(str(on_path)).resolve()).parent


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an empty database, password and all. Where we are root another user runs it: it refuses root."""
    folder = tmp_path_factory.mktemp("postgres")
    user = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    secret = folder / "secret"
    secret.write_text(PASSWORD)
    data = folder / "data"
    data.mkdir(mode=0o700)
    for path in (folder, secret, data):
        os.chown(path, user.pw_uid, user.pw_gid)
    opened = [path for path in folder.parents if path.stat().st_uid == os.getuid() and path != Path("/")]
    for path in opened:  # pytest's folders are for their owner alone
        path.chmod(path.stat().st_mode | 0o011)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    who = {"user": user.pw_uid, "group": user.pw_gid} if os.getuid() == 0 else {}
    initdb = [binaries() / "initdb", "-D", data, "-U", "facegan", "-A", "scram-sha-256", f"--pwfile={secret}", "-N"]
    subprocess.run(initdb, check=True, capture_output=True, cwd=folder, **who)
    options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
    words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    server = subprocess.Popen(
        [binaries() / "postgres", "-D", data, "-p", str(port), *words],
        cwd=folder,
        stderr=subprocess.DEVNULL,
        **who,
    )

    def answers() -> bool:
        return subprocess.run([binaries() / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]).returncode == 0

    try:
        wait_for(answers, "PostgreSQL", 60)
        yield f"postgresql://facegan:{QUOTED}@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.mark.parametrize("given", ["option", "environment"])
def test_a_run_on_postgres_and_no_word_of_its_password(database: str, tmp_path: Path, given: str) -> None:
    faces = draw_folder(tmp_path / "faces", people=8, shots=4)
    recipe = tiny(faces).model_dump(mode="json", exclude_none=True)
    workdir = tmp_path / given
    options = ["--database", database] if given == "option" else []
    with Up(workdir, *options, env={} if options else {"FACEGAN_DATABASE": database}) as up:
        with up.client() as client:
            deployment = client.read_deployment_by_name("facegan/recipe")
            chosen = {"recipe": recipe, "until": "prepare", "workdir": str(workdir)}
            run = client.create_flow_run_from_deployment(deployment.id, parameters=chosen)
            over = lambda: (state := client.read_flow_run(run.id).state) and state.is_final() and state  # noqa: E731
            state = wait_for(over, "the end of the run")
            assert state.is_completed(), state
        assert not (workdir / "data" / "prefect" / "prefect.db").exists()
        shown = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        assert str(workdir) in shown
        kept = [path.read_bytes() for path in workdir.rglob("*") if path.is_file()]
        for text in (shown, up.said(), *(data.decode("utf-8", "replace") for data in kept)):
            assert PASSWORD not in text and QUOTED not in text
