"""A Postgres server of a test's own, from Debian's packages."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def postgres() -> Iterator[str]:
    """The address of a private server, which refuses to run as root; its end is the end of all its processes."""
    programs = {path.name: path for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/*"))}
    if "initdb" not in programs:
        if os.environ.get("HEADSWEEP_REQUIRE_SLURM"):
            pytest.fail("HEADSWEEP_REQUIRE_SLURM is set, but Postgres is not installed")
        pytest.skip("Postgres is not installed: no /usr/lib/postgresql; .ci/run installs it")
    place, port = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp")), free_port()
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    shutil.chown(place, user)

    def run(program: str, *arguments: str) -> None:
        subprocess.run([programs[program], *arguments], user=user, cwd=place, check=True, stdout=subprocess.DEVNULL)

    run("initdb", "--pgdata=data", "--username=headsweep", "--auth=trust", "--no-sync")
    options = f"-p {port} -k {place} -c listen_addresses=127.0.0.1 -c fsync=off"
    run("pg_ctl", "start", "--wait", "--pgdata=data", "--log=log", "-o", options)
    try:
        yield f"postgresql+psycopg2://headsweep@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "stop", "--wait", "--pgdata=data", "--mode=immediate")
        shutil.rmtree(place)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
