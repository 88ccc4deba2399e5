"""The provisioner `runpod`: GPU pods of RunPod, over its REST API v2 or, while it lasts, over GraphQL."""

from provisioners.providers.runpod.provider import PLUGIN

__all__ = ["PLUGIN"]
