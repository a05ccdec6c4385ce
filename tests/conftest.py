"""What every test may rely on."""

from __future__ import annotations

import signal

# Why: what a shell runs in the background inherits a Ctrl-C that is ignored, and hands that on;
# some tests press it for real.
signal.signal(signal.SIGINT, signal.default_int_handler)
