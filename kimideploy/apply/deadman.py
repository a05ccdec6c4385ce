"""The dead man: a timer that looks, while a change is on trial, whether somebody still sees to it.

It is a unit on the disk and enabled, so it also looks after a boot. Whoever finds that a change was
left alone finishes it: the gate goes on where it was, and a release that fails it is rolled back.
"""

from __future__ import annotations

from kimideploy.apply.files import remove, text, write
from kimideploy.apply.home import Home
from kimideploy.apply.steps.base import program
from kimideploy.apply.systemd import Systemd
from kimideploy.render.quoting import systemd_words

SERVICE, TIMER = "kimideploy-deadman.service", "kimideploy-deadman.timer"


def arm(home: Home, systemd: Systemd, every: float) -> None:
    """Have it look every *every* seconds, now and after a boot."""
    files = {
        SERVICE: _SERVICE.format(command=systemd_words((program(home), "host", "settle"))),
        TIMER: _TIMER.format(every=f"{every:g}", wanted=_wanted(home)),
    }
    changed = [name for name, body in files.items() if text(home.units / name) != body]
    for name in changed:
        write(home.units / name, files[name].encode())
    if changed:
        systemd.reload()
    systemd.enable(TIMER)
    systemd.start(TIMER, wait=True)


def disarm(home: Home, systemd: Systemd) -> None:
    """Have it not look any more."""
    if not is_armed(home):
        return
    systemd.disable(TIMER)
    systemd.stop(TIMER)
    # Why the timer last: it says that there is something to be called off.
    for name in (SERVICE, TIMER):
        remove(home.units / name)
    systemd.reload()


def is_armed(home: Home) -> bool:
    """Return whether it looks."""
    return (home.units / TIMER).exists()


def _wanted(home: Home) -> str:
    return "timers.target" if home.scope == "system" else "default.target"


_SERVICE = """\
[Unit]
Description=Finish or take back a change of kimideploy that was left alone

[Service]
Type=oneshot
ExecStart={command}
TimeoutStartSec=infinity
"""
_TIMER = """\
[Unit]
Description=Look whether a change of kimideploy was left alone

[Timer]
OnActiveSec={every}
OnUnitInactiveSec={every}
AccuracySec=1s

[Install]
WantedBy={wanted}
"""
