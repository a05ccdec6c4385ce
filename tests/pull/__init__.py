"""Pulls against a hub on this machine: real client, real sockets, real files, real faults."""
