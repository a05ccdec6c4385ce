"""Connections, as far as they can be judged without one."""
