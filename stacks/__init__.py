"""What outlives a run: Pulumi programs, and the provisioner over them."""
