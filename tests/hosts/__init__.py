"""Real hosts with their own systemd, sshd and network, and what is deployed on them."""
