"""How the account's things look in answers of REST v2."""

from __future__ import annotations

from typing import Any

from provisioners.rehearsal import sshd
from provisioners.rehearsal.clock import Clock, rfc3339
from provisioners.rehearsal.pods import Pod
from provisioners.rehearsal.volumes import Volume

HOST = "127.0.0.1"


def pod_json(pod: Pod, clock: Clock) -> dict[str, Any]:
    asked = pod.asked
    return {
        "id": pod.id,
        "name": asked.name,
        "status": pod.status,
        "actions": list(pod.actions),
        "image": asked.image,
        "args": asked.args,
        "disk": asked.disk_gb,
        "mounts": asked.mounts_json,
        "ports": list(asked.ports),
        "env": dict(asked.env),
        "registry": asked.registry,
        "gpu": {"id": asked.gpu_id, "count": asked.gpu_count},
        "cloud": asked.cloud,
        "dataCenterId": pod.data_center,
        "cudaVersion": pod.cuda,
        "ssh": {"proxy": None, "direct": _direct(pod)},
        "template": None,
        "cost": pod.cost_usd_per_h,
        "locked": pod.locked,
        "globalNetworking": {"enabled": False},
        "runtime": _runtime(pod, clock),
        "createdAt": rfc3339(pod.created_at),
        "startedAt": None if pod.started_at is None else rfc3339(pod.started_at),
    }


def ports(pod: Pod) -> list[dict[str, Any]]:
    """The ports that are reachable now; all but SSH's are themselves, because pods share the machine's loopback."""
    found = []
    for asked in pod.asked.ports:
        number, _, kind = asked.partition("/")
        if number.isdigit():
            public = pod.ssh_port if asked == "22/tcp" else int(number)
            if public is not None:
                found.append({"private": int(number), "public": public, "type": kind or "tcp", "ip": HOST})
    return found


def volume_json(volume: Volume) -> dict[str, Any]:
    return {
        "id": volume.id,
        "name": volume.name,
        "size": volume.size_gb,
        "dataCenter": volume.data_center,
        "type": volume.type,
    }


def _direct(pod: Pod) -> dict[str, Any] | None:
    port = pod.ssh_port
    if port is None:
        return None
    name = sshd.user().pw_name
    return {"host": HOST, "port": port, "username": name, "command": f"ssh {name}@{HOST} -p {port}"}


def _runtime(pod: Pod, clock: Clock) -> dict[str, Any] | None:
    if pod.status != "RUNNING":
        return None
    return {
        "uptime": int(clock.since(pod.container_started_at)),
        "gpus": [{"util": 0, "memoryUtil": 0} for _ in range(pod.asked.gpu_count)],
        "cpu": {"util": 0},
        "memory": {"util": 0},
        "ports": ports(pod),
    }
