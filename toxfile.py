"""tox reads this file by itself.  It lets all environments of tox.ini share one virtual environment.

By default tox 4 builds one virtual environment per name, and builds it anew when two names point at one folder.
Ours need the same packages, so `runner = shared` in tox.ini leaves the name out of that comparison: one installation
instead of seven.  Everything else is tox's own runner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tox.plugin import impl
from tox.tox_env.api import ToxEnv
from tox.tox_env.info import Info
from tox.tox_env.python.virtual_env.runner import VirtualEnvRunner

if TYPE_CHECKING:
    from tox.tox_env.register import ToxEnvRegister


class SharedInfo(Info):
    """What tox remembers of a virtual environment, without the name of the one that made it."""

    def compare(self, value: Any, section: str, sub_section: str | None = None) -> Any:
        """Compare with what is remembered, as `Info.compare` does, but call every environment `shared`."""
        if section == ToxEnv.__name__:
            value = {**value, "name": "shared"}
        return super().compare(value, section, sub_section)


class SharedRunner(VirtualEnvRunner):
    """A virtual environment that several tox environments use, one after the other."""

    @staticmethod
    def id() -> str:
        """Return the name that `runner = shared` refers to."""
        return "shared"

    @property
    def cache(self) -> Info:
        """What is remembered of the environment's last set-up."""
        return SharedInfo(self.env_dir)


@impl
def tox_register_tox_env(register: ToxEnvRegister) -> None:
    """Tell tox about the runner."""
    register.add_run_env(SharedRunner)
