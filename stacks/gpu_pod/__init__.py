"""A recipe's pod as a Pulumi resource, over the same provisioner that a run asks for its machine."""
