"""What can go wrong with a rented machine, as data: for the tests, and for the table in docs/machines.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One row: what goes wrong, what recipe does about it, and how that shows."""

    what: str
    done: str
    at_start: Mapping[str, Any] = field(default_factory=dict)
    """Faults of the emulator from the beginning on."""
    while_driving: Mapping[str, Any] = field(default_factory=dict)
    """Faults that begin when the first answers are there."""
    mishap: str = ""
    """What happens to the pod then."""
    settings: tuple[str, ...] = ()
    codes: tuple[int, ...] = (0,)
    """Exit codes that are right."""
    says: str = ""
    """What the command says, somewhere."""
    pods: int = 1
    """Pods that were created."""
    then_reaped: bool = False
    """Whether it takes the fault's end and one `recipe reap --yes`."""
    survives: bool = False
    """Whether the work goes on after it; then it is ended by a signal."""
    harmless: Mapping[str, Any] = field(default_factory=dict)
    """What ends the fault."""

    @property
    def is_late(self) -> bool:
        """Whether it comes in the middle of the work."""
        return bool(self.while_driving or self.mishap)


SHORT = ("limits.deadlines.provision=8s",)

MATRIX = (
    Fault(
        what="create answers 500, and the pod is there",
        at_start={"create_500_after": 1},
        done="the pod is found by its unique name and used; none is asked for again",
    ),
    Fault(
        what="the create's answer is lost",
        at_start={"create_lost_after": 1},
        done="the same",
    ),
    Fault(
        what="create is answered with a proxy's HTML page, 502",
        at_start={"html_502": 1, "html_502_kind": "create"},
        done="the pod is looked for by its name for a minute; then, and only then, asked for again",
    ),
    Fault(
        what="one create makes two pods",
        at_start={"create_duplicate": 1},
        done="the other one of the same name is ended at once",
        pods=2,
    ),
    Fault(
        what="the first offer has no capacity (400)",
        at_start={"no_capacity_gpus": ["NVIDIA A100 80GB PCIe"]},
        done="the next offer is taken",
    ),
    Fault(what="too many requests (429)", at_start={"create_429": 2}, done="Retry-After is obeyed, then asked again"),
    Fault(
        what="no credit (402)",
        at_start={"create_402": 1},
        done="stopped: no other offer would help",
        codes=(4,),
        pods=0,
    ),
    Fault(
        what="the whole API is retired (410)",
        at_start={"gone_410": True},
        done="stopped before anything is asked for",
        codes=(4,),
        pods=0,
    ),
    Fault(what="a new pod cannot be read for a while (404)", at_start={"unreadable_s": 4}, done="waited for"),
    Fault(
        what="lists lag, and come in pages",
        at_start={"list_lag_new_s": 6, "list_lag_gone_s": 4, "page_size": 1},
        done="lists are followed to their end; gone is what stays away from two of them",
    ),
    Fault(
        what="the pod is stuck in PROVISIONING",
        at_start={"stuck_provisioning": 1},
        settings=SHORT,
        done="let go at limits.deadlines.provision",
        codes=(4,),
        says="limits.deadlines.provision",
    ),
    Fault(
        what="the pod goes to ERROR",
        at_start={"error_after_s": 0.3, "starting_s": 60},
        done="let go at once",
        codes=(4,),
        says="ERROR",
    ),
    Fault(
        what="it never gets a public address",
        at_start={"no_direct_s": -1},
        settings=SHORT,
        done="let go at limits.deadlines.provision",
        codes=(4,),
        says="limits.deadlines.provision",
    ),
    Fault(what="it gets one late", at_start={"no_direct_s": 3}, done="waited for"),
    Fault(what="its SSH server refuses connections for a while", at_start={"sshd_delay_s": 6}, done="tried again"),
    Fault(what="a stale port is reported first", at_start={"stale_port_s": 4}, done="the address is asked for anew"),
    Fault(
        what="the start command crashes again and again",
        at_start={"crash_loop": 1},
        settings=SHORT,
        done="let go at limits.deadlines.provision",
        codes=(4,),
        says="limits.deadlines.provision",
    ),
    Fault(
        what="the pod's disk is full",
        at_start={"disk_kib": 1200},
        settings=("limits.deadlines.provision=20s", "resources.volumes=[]"),
        done="the step that failed is named; let go",
        codes=(4, 5),
    ),
    Fault(
        what="another machine answers at its address (host key changed)",
        mishap="rekey",
        done="refused loudly, nothing more is sent there; let go",
        codes=(4,),
        says="host key",
    ),
    Fault(
        what="all connections are cut",
        mishap="cut",
        done="tunnel and log heal; requests that were cut are sent again",
        survives=True,
        codes=(130,),
    ),
    Fault(
        what="its SSH server freezes",
        mishap="freeze",
        done="taken for lost when it stays silent; let go",
        codes=(4,),
    ),
    Fault(
        what="the pod is taken away (pre-emption)",
        mishap="preempt",
        done="told as that, not as a failed engine; let go, because a stopped pod bills its disks",
        codes=(4,),
        says="taken away",
    ),
    Fault(
        what="the container restarts in the middle",
        mishap="restart",
        done="the engine is gone with it: the run fails with what it has; let go",
        codes=(4, 6, 7),
    ),
    Fault(what="DELETE answers 500 twice", at_start={"delete_500": 2}, done="asked again"),
    Fault(
        what="DELETE answers 204, and the pod stays listed",
        at_start={"delete_ignored": 2},
        done="deleted again until it is gone",
    ),
    Fault(
        what="DELETE answers 404 while the pod bills",
        at_start={"delete_404": 2},
        done="not believed while the pod can be read or is listed; deleted again",
    ),
    Fault(
        what="DELETE never works",
        at_start={"delete_500": -1},
        settings=("limits.deadlines.release=6s",),
        done="exit 9 with name, price and command; one reap ends it when RunPod is well again",
        codes=(9,),
        says="NOT PROVEN GONE",
        then_reaped=True,
        harmless={"delete_500": 0},
    ),
    Fault(
        what="the API is down at the end",
        while_driving={"down_from_s": 0.0, "down_how": "503"},
        settings=("limits.deadlines.release=6s",),
        done="the same",
        codes=(9,),
        says="NOT PROVEN GONE",
        then_reaped=True,
        harmless={"down_from_s": None},
    ),
    Fault(
        what="the key is revoked in the middle",
        while_driving={"revoke_key_after_s": 0.0},
        settings=("limits.deadlines.release=6s",),
        done="exit 9 at once; a reap with a good key ends it, or the pod's own switch",
        codes=(9,),
        says="NOT PROVEN GONE",
        then_reaped=True,
        harmless={"revoke_key_after_s": None},
    ),
    Fault(
        what="the pod's own key may not end it",
        at_start={"pod_key_refused": ["action", "delete", "graphql"]},
        done="warned of at the start: only the client and reap let this machine go",
        says="switch",
    ),
)
