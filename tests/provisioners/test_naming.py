"""Names of machines: they carry owner, run and deadline, and survive a provider's limit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioners.naming import LONGEST, lease_name, owner_name, read_name

STARTED = datetime(2026, 11, 21, 5, 12, 33, tzinfo=UTC)
RUN = "2xA100-airoboros-70b-20261121-051233-9f3a"


def test_a_name_says_whose_it_is_which_run_and_until_when() -> None:
    name = lease_name("ana", RUN, STARTED + timedelta(hours=3))
    assert name == "recipe-ana-2xA100-airoboros-70b-20261121-051233-9f3a-180m"
    read = read_name(name)
    assert read is not None
    assert (read.owner, read.run, read.deadline) == ("ana", RUN, STARTED + timedelta(hours=3))


@given(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", fullmatch=True),
    st.from_regex(r"[a-z0-9]{1,12}", fullmatch=True),
    st.integers(min_value=1, max_value=3650 * 1440),
)
def test_every_name_fits_and_can_be_read_again(recipe: str, owner: str, minutes: int) -> None:
    name = lease_name(owner, f"{recipe}-20261121-051233-9f3a", STARTED + timedelta(minutes=minutes))
    assert len(name) <= LONGEST
    read = read_name(name)
    assert read is not None
    assert (read.owner, read.run[-20:]) == (owner, "20261121-051233-9f3a")
    assert read.deadline == STARTED + timedelta(minutes=minutes)


@pytest.mark.parametrize(
    "name",
    ["", "recipe", "my-pod", "recipe-ana", "recipe-ana-20261121-051233-9f3a", "xrecipe-a-20261121-051233-9f3a-1m"],
)
def test_what_is_not_ours_is_not_read(name: str) -> None:
    assert read_name(name) is None


def test_an_owner_is_what_the_environment_says_in_plain_letters() -> None:
    assert owner_name({"RECIPE_OWNER": "Ana María O'Neill"}) == "anamaraoneil"
    assert owner_name({"RECIPE_OWNER": "!!"}) == "nobody"
    assert owner_name({})


def test_what_is_no_run_gets_no_name() -> None:
    with pytest.raises(ValueError, match="not the id of a run"):
        lease_name("ana", "something", STARTED)
