"""What every test may rely on."""

from __future__ import annotations

import signal

# Why: what a shell runs in the background inherits a Ctrl-C that is ignored, and nohup a hang-up,
# and both are handed on; some tests send them for real.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
