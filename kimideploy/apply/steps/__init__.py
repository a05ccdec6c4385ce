"""The steps that turn a host into what an order asks for: look, do, undo."""
