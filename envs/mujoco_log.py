"""What MuJoCo has to say goes into the log.

By itself it writes each warning to the terminal and into a file MUJOCO_LOG.TXT of the folder that one is in: that a
simulation has become unstable, and, from version 4 on, what gymnasium's own models use that is deprecated.
"""

from __future__ import annotations

import logging
import sys

_log = logging.getLogger(__name__)


def route() -> None:
    """From now on, in this process. Does nothing where MuJoCo has not been imported, or somebody has set a handler."""
    mujoco = sys.modules.get("mujoco")
    if mujoco is not None and mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(_told)


def _told(text: str) -> None:
    # The simulation is reset behind the environment's back, which whoever trains should know. All else is for authors
    # of models.
    level = logging.WARNING if "unstable" in text else logging.INFO
    _log.log(level, "MuJoCo: %s", " ".join(text.split()))
