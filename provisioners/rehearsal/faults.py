"""What goes wrong on demand, as one value that can be read from JSON and changed while the emulator runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args, get_type_hints

RequestKind = Literal["any", "create", "list", "get", "delete", "action", "catalog", "billing", "graphql", "other"]
Way = Literal["action", "delete", "graphql"]


@dataclass(frozen=True, kw_only=True)
class Faults:
    """Each field is one fault; the defaults are none.

    A count is how many times it happens, the first ones first; a negative count means always. Seconds are the
    emulator's (`time_scale` makes them pass faster); None means never, a negative duration for ever.
    """

    # Creating
    create_500_after: int = 0
    """Creates that make the pod and answer 500."""
    create_lost_after: int = 0
    """Creates that make the pod and close the connection without an answer."""
    create_500_before: int = 0
    """Creates that answer 500 and make nothing."""
    create_no_capacity: int = 0
    """Creates that are answered with 400, whatever they ask for."""
    no_capacity_gpus: tuple[str, ...] = ()
    """GPU ids (or GPU@CLOUD, GPU@DATACENTER) that cannot be had: always 400, and NONE in the catalogue."""
    create_402: int = 0
    """Creates that are refused for lack of credit."""
    forbidden_gpus: tuple[str, ...] = ()
    """GPU ids (or GPU@CLOUD, GPU@DATACENTER) that answer 403: a pool that the account may not use."""
    create_422: int = 0
    """Creates that are refused as malformed."""
    create_429: int = 0
    """Creates that are refused with 429 and Retry-After."""
    retry_after_s: int = 1
    """What Retry-After says: seconds, whole ones, of the real clock."""
    create_duplicate: int = 0
    """Creates that make two pods of the same name and answer with one of them."""
    create_answer_delay_s: float = 0.0
    """How long after the pod was made the answer to its create comes; at once when this is taken back."""
    cost_factor: float = 1.0
    """What a pod costs, as a multiple of what the catalogue says."""

    # Reading
    answer_delay_s: float = 0.0
    """How long every answer takes."""
    unreadable_s: float = 0.0
    """How long a new pod cannot be found by its id: GET and DELETE answer 404."""
    list_lag_new_s: float = 0.0
    """How long a new pod is missing from lists."""
    list_lag_gone_s: float = 0.0
    """How long a terminated pod stays in lists."""
    terminated_visible_s: float = 0.0
    """How long GET of a terminated pod says TERMINATED before it answers 404."""
    page_size: int = 0
    """How many pods a list holds before `nextCursor`; 0 for no pages."""
    billing_lag_s: float = 0.0
    """How late money appears in /billing/pods."""

    # The pod's life
    provisioning_s: float = 0.0
    """How long a pod is PROVISIONING."""
    starting_s: float = 0.0
    """How long a pod is STARTING (the image is pulled)."""
    stuck_provisioning: int = 0
    """Pods that stay PROVISIONING for ever."""
    error_after_s: float | None = None
    """When a new pod goes to ERROR; it bills on."""
    crash_loop: int = 0
    """Pods whose start command is replaced by one that exits at once."""
    restart_after_s: float | None = None
    """When a running container is restarted, once: everything in it dies."""
    preempt_after_s: float | None = None
    """When a running pod is taken away: EXITED by itself."""
    disk_kib: int | None = None
    """The size of the pod's own disk (its /tmp and home), if it is to be full soon. Needs root."""

    # SSH
    no_direct_s: float = 0.0
    """How long a running pod has no `ssh.direct` and no public port."""
    sshd_delay_s: float = 0.0
    """How long the port of a running pod refuses connections."""
    stale_port_s: float = 0.0
    """How long a running pod reports a port where nobody listens, before it reports its own."""
    rekey_after_s: float | None = None
    """When a pod's sshd comes back with another host key."""
    freeze_after_s: float | None = None
    """When sshd and its sessions are stopped (SIGSTOP): connections stand and say nothing."""
    cut_after_s: float | None = None
    """When all SSH sessions are cut, once; sshd itself stays."""

    # Ending
    delete_500: int = 0
    """Terminations that are answered with 500 and do nothing."""
    delete_ignored: int = 0
    """Terminations that are answered with 204 and do nothing: the pod stays listed and bills."""
    delete_403: int = 0
    """Terminations that are answered with 403 and do nothing: the key may not end pods."""
    delete_404: int = 0
    """Terminations that are answered with 404 and do nothing: the pod bills."""
    delete_lost: int = 0
    """Terminations that happen, and whose connection is closed without an answer."""
    delete_faults_for: Literal["account", "pod", "all"] = "account"
    """Whose terminations the five above meet: those with the account's key, or with the pods' own."""

    # Network volumes
    volume_500_after: int = 0
    """Creates that make the volume and answer 500."""
    volume_lost_after: int = 0
    """Creates that make the volume and close the connection without an answer."""
    volume_500_before: int = 0
    """Creates that answer 500 and make nothing."""
    volume_429: int = 0
    """Creates that are refused with 429 and Retry-After."""
    volume_402: int = 0
    """Creates that are refused for lack of credit."""
    volume_duplicate: int = 0
    """Creates that make two volumes of the same name and answer with one of them."""
    volume_list_lag_s: float = 0.0
    """How long a new volume is missing from lists."""
    volume_list_lag_gone_s: float = 0.0
    """How long a deleted volume stays in lists."""
    volume_grow_500: int = 0
    """Changes of a volume that are answered with 500 and do nothing."""
    volume_grow_lost: int = 0
    """Changes of a volume that happen, and whose connection is closed without an answer."""
    volume_grow_ignored: int = 0
    """Changes of a volume that are answered with 200 and do nothing."""
    volume_delete_500: int = 0
    """Deletes of a volume that are answered with 500 and do nothing."""
    volume_delete_404: int = 0
    """Deletes of a volume that are answered with 404 and do nothing: it bills."""
    volume_delete_ignored: int = 0
    """Deletes of a volume that are answered with 204 and do nothing: it stays listed and bills."""
    volume_delete_lost: int = 0
    """Deletes of a volume that happen, and whose connection is closed without an answer."""

    # The API as a whole
    revoke_key_after_requests: int | None = None
    """How many requests the account's key is good for; 401 after them."""
    revoke_key_after_s: float | None = None
    """How long the account's key is good for, from when this fault is set."""
    down_from_s: float | None = None
    """When the API goes down, from when this fault is set."""
    down_for_s: float = -1.0
    """How long it stays down."""
    down_how: Literal["refuse", "503"] = "refuse"
    """What being down is: connections refused, or 503."""
    answer_429: int = 0
    """Requests of any kind that are refused with 429 and Retry-After."""
    gone_410: bool = False
    """Every request is answered with 410."""
    html_502: int = 0
    """Requests that are answered by a proxy's HTML page with 502, and do nothing."""
    html_502_kind: RequestKind = "any"
    """Which requests these are."""
    pod_key_refused: tuple[Way, ...] = ()
    """Ways on which a pod's own key is refused."""

    @classmethod
    def from_json(cls, text: str) -> Faults:
        """Raises ValueError, naming the field, for anything that is not a fault."""
        return cls().changed(json.loads(text))

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def changed(self, changes: Mapping[str, Any]) -> Faults:
        """These faults with some fields replaced. Raises ValueError as `from_json` does."""
        if not isinstance(changes, Mapping):
            raise ValueError("faults are a JSON object")
        return replace(self, **{name: _checked(name, value) for name, value in changes.items()})


_TYPES = get_type_hints(Faults)


def _checked(name: str, value: Any) -> Any:
    known = {field.name for field in fields(Faults)}
    if name not in known:
        raise ValueError(f"{name} is not a fault; there are {', '.join(sorted(known))}")
    kind = _TYPES[name]
    if str(kind).startswith("tuple"):
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise ValueError(f"{name} is a list of texts")
        return tuple(value)
    if str(kind).startswith("typing.Literal"):
        if value not in get_args(kind):
            raise ValueError(f"{name} is one of {', '.join(get_args(kind))}")
        return value
    allowed = get_args(kind) or (kind,)
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) not in allowed:
        raise ValueError(f"{name} cannot be {value!r}")
    return value


class Mishaps:
    """The faults that are due: counts go down as they happen."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self._happened: Counter[str] = Counter()

    def change(self, changes: Mapping[str, Any]) -> None:
        """Change some fields; what is named here counts from the beginning again."""
        self.faults = self.faults.changed(changes)
        for name in changes:
            del self._happened[name]

    def due(self, name: str) -> bool:
        """Whether a counted fault happens now; if so, it has happened once more."""
        times = getattr(self.faults, name)
        if 0 <= times <= self._happened[name]:
            return False
        self._happened[name] += 1
        return True
