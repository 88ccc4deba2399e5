"""A pod's stack in people's words: what bills, what has ended by itself, and why another pod is to be made."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from provisioners.contract import Lease
from runners.stacking import gpu_pod
from stacks.orders import lease_data
from stacks.values import Changes, Step

NOW = datetime.now(UTC)
WANTED: dict[str, Any] = {
    "accelerators": "A40:1",
    "recipe": "podlet",
    "makes ready": "one",
    "ports": [8000],
    "limits": {"max_duration": 10800.0, "max_cost": 3.0},
}


def outputs(until: datetime) -> dict[str, Any]:
    lease = Lease(
        provider="pulumi", name="recipe-ana-podlet", run_id="podlet-1", id="x1", price_usd_per_h=0.44, deadline=until
    )
    return {"lease": lease_data(lease)}


def replaced(now: dict[str, Any], *, op: str = "replace", until: datetime = NOW + timedelta(hours=2)) -> Any:
    changes = Changes((Step(op=op, type="GpuPod", name="pod", changed=("run", "wanted")),))
    return gpu_pod.replaced(changes, {"wanted": WANTED}, {"wanted": now}, outputs(until))


@pytest.mark.parametrize(
    ("now", "because"),
    [
        ({**WANTED, "accelerators": "L40S:1"}, "resources.accelerators A40:1 → L40S:1"),
        ({**WANTED, "cloud": "secure"}, "resources.cloud nothing → secure"),
        ({**WANTED, "recipe": "other"}, "name podlet → other"),
        ({**WANTED, "limits": {"max_duration": 3600.0, "max_cost": 3.0}}, "limits.max_duration 3h → 1h"),
        ({**WANTED, "limits": {"max_duration": 10800.0}}, "limits.max_cost $3.00 → nothing"),
        ({**WANTED, "ports": [8000, 22]}, "ports 8000 → 8000, 22"),
        ({**WANTED, "makes ready": "two"}, "its engine, its model or how they are made ready"),
    ],
)
def test_why_another_pod_is_made_is_said_in_the_recipes_words(now: dict[str, Any], because: str) -> None:
    found = replaced(now)
    assert found.because == (because,)
    assert found.ends.startswith("pod x1 (recipe-ana-podlet) at $0.44/h until ")
    assert found.ends.endswith(" first, with what is loaded on it")


def test_nothing_is_said_of_a_pod_that_stays() -> None:
    assert replaced(WANTED, op="same") is None
    assert replaced(WANTED, op="update") is None


def test_a_pod_whose_deadline_has_passed_has_ended_by_itself() -> None:
    found = replaced(WANTED, until=datetime(2026, 1, 2, 3, 4, tzinfo=UTC))
    told = "pod x1 (recipe-ana-podlet) at $0.44/h, which has ended by itself at 2026-01-02 03:04 UTC"
    assert (found.because, found.ends) == ((), told)
    bill = gpu_pod.billing(outputs(datetime(2026, 1, 2, 3, 4, tzinfo=UTC)))
    assert bill is not None
    assert bill.over
    assert bill.data() == {
        "what": told,
        "id": "x1",
        "usd_per_h": 0.44,
        "usd_per_month": None,
        "until": "2026-01-02T03:04:00+00:00",
    }


def test_a_pod_that_runs_is_ended_without_pulumi_as_well() -> None:
    bill = gpu_pod.billing(outputs(NOW + timedelta(hours=1)))
    assert bill is not None
    assert not bill.over
    assert bill.way_out == "recipe down podlet-1 ends it without Pulumi"
    assert gpu_pod.billing({}) is None


def test_only_the_computer_whose_key_opens_it_is_told_the_shell(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RECIPE_HOME", str(tmp_path))
    told = dict(gpu_pod.told(outputs(NOW + timedelta(hours=1))))
    assert told["shell"] == "it was rented from another computer, whose key alone opens it"
