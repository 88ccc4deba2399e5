"""A plain Pulumi project: pulumi config set recipe FILE; pulumi up"""

from stacks.plain import main

main("model_cache")
