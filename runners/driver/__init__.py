"""The drive of a run on its machine: a driver that goes on alone there, and the client's side of it.

`runners/travel.py` and `belongings` are what travels, `order` what the driver is told, `main` the driver itself,
`mirror` how what it writes is told line by line; `remote` is the client's side, `notes` what it writes down of it.
"""
