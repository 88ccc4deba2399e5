"""Gone only with proof: its end accepted, unreadable, and absent from two lists apart. Else it may still bill."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace
from typing import Any

import pytest

from provisioners.contract import Gone, MayStillBill, Release
from provisioners.providers.runpod.answers import (
    ApiError,
    Conflict,
    Forbidden,
    Lost,
    NotFound,
    RateLimited,
    Retired,
    ServerError,
    Unauthorized,
)
from provisioners.providers.runpod.pace import PACE, Pace
from provisioners.providers.runpod.release import let_go
from tests.provisioners.runpod.scripted import NAME, QUICK, CloudDouble, always

PACE_HERE = replace(QUICK, request_s=0.05)
# Where an absence must not last long enough to prove anything, however slow the machine is.
NEVER_SETTLED = replace(PACE_HERE, unnamed_settle_s=600.0)
DOWN = ServerError("DELETE /pods/pod1 → 502", short="502")


def letting_go(
    cloud: CloudDouble, *pod_ids: str, patience_s: float = 60.0, pace: Pace = PACE_HERE, **given: Any
) -> Release:
    return asyncio.run(let_go(cloud, NAME, pod_ids, pace, patience_s=patience_s, **given))


def one() -> CloudDouble:
    cloud = CloudDouble()
    cloud.add("pod1")
    return cloud


def proof(release: Release) -> str:
    assert isinstance(release, Gone), release
    return release.proof


def reason(release: Release) -> str:
    assert isinstance(release, MayStillBill), release
    assert release.command.startswith("recipe reap --yes")
    return release.reason


def test_the_usual_end_is_one_delete_and_two_lists_apart() -> None:
    cloud = one()
    began = time.monotonic()
    said = proof(letting_go(cloud, "pod1"))
    assert time.monotonic() - began >= PACE_HERE.lists_apart_s
    assert (cloud.count("end"), cloud.count("pods"), cloud.count("pod")) == (1, 2, 2)
    assert said.startswith("pod pod1 deleted ")
    assert "absent from the lists of " in said


def test_the_lists_are_two_seconds_apart() -> None:
    assert PACE.lists_apart_s == 2.0


def test_everything_of_the_same_name_goes_as_well() -> None:
    cloud = one()
    cloud.add("twin")
    cloud.add("other", "somebody-elses")
    said = proof(letting_go(cloud, "pod1"))
    assert list(cloud.running) == ["other"]
    assert "pod1" in said
    assert "twin" in said


def test_a_lease_without_an_id_is_found_by_its_name() -> None:
    cloud = one()
    assert "pod1 deleted" in proof(letting_go(cloud))
    assert cloud.running == {}


def test_without_an_id_an_absence_must_last() -> None:
    began = time.monotonic()
    said = proof(letting_go(CloudDouble()))
    assert time.monotonic() - began >= PACE_HERE.unnamed_settle_s
    assert said.startswith(f"no pod called {NAME}: absent from ")


def test_without_an_id_a_late_pod_is_ended() -> None:
    cloud = one()
    cloud.hidden_from_lists.add("pod1")

    def look(call: str) -> None:
        if cloud.count("pods") == 6:
            cloud.hidden_from_lists.clear()

    cloud.on_call = look
    assert "pod1 deleted" in proof(letting_go(cloud, pace=NEVER_SETTLED))
    assert cloud.running == {}


def test_too_little_patience_for_a_lease_without_an_id_proves_nothing() -> None:
    assert "too short a time to be sure" in reason(letting_go(CloudDouble(), patience_s=0.3, pace=NEVER_SETTLED))


def test_an_accepted_delete_that_does_nothing_is_repeated() -> None:
    cloud = one()
    cloud.deaf = 3
    proof(letting_go(cloud, "pod1"))
    assert cloud.count("end") == 4
    assert cloud.running == {}


def test_an_accepted_delete_that_never_does_anything_is_no_end() -> None:
    cloud = one()
    cloud.deaf = 10_000
    said = reason(letting_go(cloud, "pod1", patience_s=0.3))
    assert "accepted" in said
    assert "still has pod pod1 as RUNNING" in said


def test_a_terminated_pod_may_stay_in_the_lists() -> None:
    cloud = one()

    def end(call: str) -> None:
        if call == "pods" and "pod1" not in cloud.running:
            cloud.add("pod1", status="TERMINATED")

    cloud.on_call = end
    proof(letting_go(cloud, "pod1"))


@pytest.mark.parametrize("error", [DOWN, Lost("no answer in time"), RateLimited("429"), Conflict("409")])
def test_a_delete_that_fails_is_tried_again(error: ApiError) -> None:
    cloud = one()
    cloud.trouble["end"] = [error, error]
    proof(letting_go(cloud, "pod1"))
    assert cloud.count("end") == 3


def test_a_delete_whose_answer_was_lost_is_believed_when_the_next_says_that_there_is_none() -> None:
    cloud = one()
    cloud.after["end"] = [Lost("no answer in time")]
    began = time.monotonic()
    said = proof(letting_go(cloud, "pod1"))
    assert time.monotonic() - began >= PACE_HERE.settle_s
    assert "pod1 was there before" in said


def test_no_answer_until_patience_ends_is_said_with_its_figures() -> None:
    cloud = one()
    cloud.trouble = {"end": always(DOWN), "pods": always(DOWN), "pod": always(DOWN)}
    said = reason(letting_go(cloud, "pod1", patience_s=1.2))
    deletes = cloud.count("end")
    assert deletes > 2
    assert re.fullmatch(rf"RunPod did not answer {deletes} deletes in \d+ s \(last: 502\)", said)


def test_an_accepted_delete_without_a_list_is_no_proof() -> None:
    cloud = one()
    cloud.trouble["pods"] = always(DOWN)
    said = reason(letting_go(cloud, "pod1", patience_s=0.3))
    assert "accepted the delete, but did not show" in said


def test_without_an_id_and_without_a_list_nobody_knows() -> None:
    cloud = CloudDouble(trouble={"pods": always(DOWN)})
    assert "nobody knows whether" in reason(letting_go(cloud, patience_s=0.3))


def test_one_failed_list_starts_the_proof_anew() -> None:
    cloud = one()
    cloud.trouble["pods"] = [None, DOWN, None]
    proof(letting_go(cloud, "pod1"))
    assert cloud.count("pods") == 4


def test_a_pod_that_comes_back_starts_the_proof_anew() -> None:
    cloud = one()

    def look(call: str) -> None:
        if call == "pods" and cloud.count("pods") == 2:
            cloud.add("pod1")

    cloud.on_call = look
    proof(letting_go(cloud, "pod1"))
    assert cloud.count("end") == 2
    assert cloud.running == {}


@pytest.mark.parametrize("error", [Unauthorized("→ 401"), Forbidden("→ 403"), Retired("→ 410")])
@pytest.mark.parametrize("call", ["end", "pods"])
def test_a_key_that_is_refused_again_and_again_is_said_soon(error: ApiError, call: str) -> None:
    cloud = one()
    cloud.trouble[call] = always(error)
    began = time.monotonic()
    assert error.what in reason(letting_go(cloud, "pod1"))
    assert time.monotonic() - began < 30.0, "half of its patience"
    assert 1 < cloud.count(call) <= 3 * (2 if call == "end" else 1)


@pytest.mark.parametrize("error", [Unauthorized("→ 401"), Forbidden("→ 403"), Retired("→ 410")])
@pytest.mark.parametrize("call", ["end", "pods"])
def test_a_single_refusal_is_a_mishap_of_the_other_side(error: ApiError, call: str) -> None:
    cloud = one()
    cloud.trouble[call] = [error]
    proof(letting_go(cloud, "pod1"))
    assert cloud.running == {}


def test_a_404_of_a_pod_that_was_there_is_a_proof_when_it_lasts() -> None:
    began = time.monotonic()
    said = proof(letting_go(CloudDouble(), "pod1", known=True))
    assert time.monotonic() - began >= PACE_HERE.settle_s
    assert "pod1 was there before and is not any more" in said


def test_a_404_of_a_pod_that_nobody_has_seen_is_none() -> None:
    said = reason(letting_go(CloudDouble(), "pod1", known=False, patience_s=0.5))
    assert "too new for that to prove anything" in said


def test_a_new_pod_that_was_denied_first_is_ended_when_it_shows() -> None:
    cloud = one()
    cloud.unreadable.add("pod1")
    cloud.hidden_from_lists.add("pod1")
    cloud.trouble["end"] = [NotFound("→ 404", short="404")] * 3

    def look(call: str) -> None:
        if cloud.count("pods") == 6:
            cloud.hidden_from_lists.clear()
            cloud.unreadable.clear()

    cloud.on_call = look
    assert "pod1 deleted" in proof(letting_go(cloud, "pod1", known=False))
    assert cloud.running == {}


def test_a_delete_that_denies_a_pod_which_is_listed_is_repeated() -> None:
    cloud = one()
    cloud.trouble["end"] = [NotFound("→ 404", short="404")] * 4
    assert "pod1 deleted" in proof(letting_go(cloud, "pod1", known=False))
    assert cloud.running == {}


def test_only_one_of_a_name_goes_if_only_one_is_meant() -> None:
    cloud = one()
    cloud.add("keep")
    proof(letting_go(cloud, "pod1", whole_name=False))
    assert list(cloud.running) == ["keep"]


def test_it_is_asked_once_even_without_patience() -> None:
    cloud = one()
    letting_go(cloud, "pod1", patience_s=0.0)
    assert cloud.running == {}


def test_a_frozen_api_ends_with_patience() -> None:
    class Frozen(CloudDouble):
        async def end(self, pod_id: str) -> None:
            self.calls.append("end")
            await asyncio.Event().wait()

    assert "did not answer 1 delete in" in reason(letting_go(Frozen(), "pod1", patience_s=0.1))
