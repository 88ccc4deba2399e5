"""Machines of somebody's own, over SSH: taken whole for one lease at a time, and left as they were found."""

from provisioners.providers.ssh.provider import SshProvisioner

PLUGIN = SshProvisioner
