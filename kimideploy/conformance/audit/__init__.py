"""What lies between a model and its user, and what it does to what passes through it."""
