"""A stack in the list, as data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from provisioners.naming import read_name
from runners.stacking.billing import Billing
from stacks.reference import StackRef


@dataclass(frozen=True, kw_only=True)
class StackRow:
    """A stack in the list."""

    ref: StackRef
    resources: int | None = None
    """How many it holds, and `busy` whether somebody is changing it: None if nobody has said."""
    busy: bool | None = None
    bill: Billing | None = None
    more: str = ""
    """What else is to be told of it."""
    unfinished: bool = False
    """Its update has not come to its end: the state alone knows what it holds."""
    is_kept: bool = False
    """As this machine last saw it: nobody could be asked."""
    updated_at: datetime | None = None

    @property
    def says(self) -> str:
        """What it bills, in a few words; "" if nothing does."""
        bill = self.bill
        what = "" if bill is None else f"bills nothing: {bill.gone}" if bill.gone else bill.what
        return "; ".join(filter(None, [what, self.more]))

    @property
    def ways(self) -> str:
        """What goes on with an update that has not come to its end, and what ends it; a run's stack is its own."""
        recipe = "" if self.ref.program == "model_cache" else " RECIPE"  # a cache's state says what it was asked for
        goes_on = f"recipe stack up {self.ref}{recipe} goes on, " if read_name(self.ref.name) is None else ""
        return f"{goes_on}recipe stack destroy {self.ref} ends it"

    @property
    def way_out(self) -> str:
        """What ends what it bills where Pulumi cannot be asked."""
        return self.bill.way_out if self.is_kept and self.bill is not None and not self.bill.over else ""

    def document(self) -> dict[str, Any]:
        """For --json; always of the same shape."""
        return {
            "stack": str(self.ref),
            "resources": self.resources,
            "busy": self.busy,
            "bills": self.bill.data() if self.bill is not None and not self.bill.gone else None,
            "says": self.says,
            "unfinished": self.unfinished,
            "way_out": self.way_out,
            "updated_at": self.updated_at.isoformat(timespec="seconds") if self.updated_at else None,
        }
