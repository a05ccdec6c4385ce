"""kimideploy takes a GPU box from bare metal to a verified endpoint of Kimi K2."""

__version__ = "0.1.0"
