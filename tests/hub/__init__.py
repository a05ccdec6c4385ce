"""A hub on this machine: what the real client asks for, with faults on demand."""
