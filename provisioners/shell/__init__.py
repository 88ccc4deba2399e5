"""A machine over SSH: commands, files, tunnels, and the host that they make."""
