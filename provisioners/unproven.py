"""What may still bill, as the error that says so; and how long nobody can be sure of what lists do not show."""

from __future__ import annotations

from provisioners.contract import Lease, MayStillBill
from recipes.errors import MayStillBillError

LISTED_S = 60.0
"""So long after it was asked for a machine may be in no list."""
LOOK_EVERY_S = 2.0
"""How often such a one is looked for."""


def unproven(lease: Lease, release: MayStillBill) -> MayStillBillError:
    """With name, price and the command that ends it."""
    named = f"{lease.name} ({lease.id})" if lease.id else lease.name
    price = f" for ${lease.usd_per_h:.2f}/h" if lease.usd_per_h else ""
    return MayStillBillError(f"{named} may still bill{price}: {release.reason}", advice=release.command)
