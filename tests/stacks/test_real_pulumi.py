"""The same by the real engine: what the double only imitates. Skipped, and loudly, where `pulumi` is not there.

Most of these are the tests of the double, of the stacks and of the plain projects themselves: where they pass with
both engines, the double is as good as the real one for what they show. RECIPE_TEST_PULUMI names the command, if it is
not on PATH.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from pulumi import automation

from tests.conftest import eventually
from tests.emulators.pulumi import double_on_path, live_in, needs_real_pulumi, real_pulumi_on_path
from tests.stacks.bench import Bench, failure, let_go, pipe
from tests.stacks.dynamic_things import Thing
from tests.stacks.test_engine_double import (
    bench,
    engines_of,
    no_things,
    test_a_delete_that_fails_keeps_it_in_the_state,
    test_a_failure_keeps_what_was_done_and_the_next_up_goes_on,
    test_a_plain_project_runs_with_its_configuration,
    test_a_preview_asks_and_writes_nothing,
    test_a_provider_that_dies_fails_its_step,
    test_a_signal_lets_the_running_step_end_and_begins_no_other,
    test_a_stack_is_made_left_alone_changed_replaced_and_destroyed,
    test_an_input_that_the_provider_refuses_is_told,
    test_another_folder_and_the_same_state,
    test_of_two_engines_on_a_stack_one_is_refused_and_other_stacks_go_on,
    test_refresh_sees_what_others_changed_and_what_is_gone,
    test_secrets_are_nowhere_in_clear_but_at_the_provider,
    test_stacks_are_made_listed_and_removed,
    test_what_hangs_on_it_goes_first_where_it_is_deleted_before_it_is_made_again,
    test_what_is_protected_stays,
    test_what_the_program_no_longer_has_is_deleted_at_the_end,
    two,
)
from tests.stacks.test_engines_surroundings import (
    site,
    test_a_colleagues_first_update_goes_on_with_the_states_own_key,
    test_a_passphrase_of_another_project_makes_no_stack_unreadable,
    test_a_stack_of_this_name_in_another_backend_is_another_stack,
    test_a_stack_that_a_colleague_has_made_anew_is_read_with_its_own_key,
    test_an_old_backend_whose_stacks_have_no_projects_is_refused,
    test_an_update_asks_once_what_it_put_out,
    test_what_is_removed_leaves_nothing_of_its_own,
)
from tests.stacks.test_plain_projects import (
    hub,
    image,
    runpod,
    test_a_plain_project_makes_one_and_lets_it_go,
)

__all__ = [
    "bench",
    "hub",
    "image",
    "runpod",
    "site",
    "test_a_colleagues_first_update_goes_on_with_the_states_own_key",
    "test_a_delete_that_fails_keeps_it_in_the_state",
    "test_a_failure_keeps_what_was_done_and_the_next_up_goes_on",
    "test_a_passphrase_of_another_project_makes_no_stack_unreadable",
    "test_a_plain_project_makes_one_and_lets_it_go",
    "test_a_plain_project_runs_with_its_configuration",
    "test_a_preview_asks_and_writes_nothing",
    "test_a_provider_that_dies_fails_its_step",
    "test_a_signal_lets_the_running_step_end_and_begins_no_other",
    "test_a_stack_is_made_left_alone_changed_replaced_and_destroyed",
    "test_a_stack_of_this_name_in_another_backend_is_another_stack",
    "test_a_stack_that_a_colleague_has_made_anew_is_read_with_its_own_key",
    "test_an_input_that_the_provider_refuses_is_told",
    "test_an_old_backend_whose_stacks_have_no_projects_is_refused",
    "test_an_update_asks_once_what_it_put_out",
    "test_another_folder_and_the_same_state",
    "test_of_two_engines_on_a_stack_one_is_refused_and_other_stacks_go_on",
    "test_refresh_sees_what_others_changed_and_what_is_gone",
    "test_secrets_are_nowhere_in_clear_but_at_the_provider",
    "test_stacks_are_made_listed_and_removed",
    "test_what_hangs_on_it_goes_first_where_it_is_deleted_before_it_is_made_again",
    "test_what_is_protected_stays",
    "test_what_is_removed_leaves_nothing_of_its_own",
    "test_what_the_program_no_longer_has_is_deleted_at_the_end",
]
pytestmark = [
    pytest.mark.real,
    needs_real_pulumi,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def pulumi_engine(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The real command, for the tests of this module."""
    return live_in(real_pulumi_on_path(tmp_path_factory.mktemp("pulumi")), monkeypatch)


def test_an_engine_that_is_killed_leaves_a_lock_a_pending_create_and_a_provider_that_goes_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THINGS_STAY", "1")
    gate = pipe(bench.folder, "gate")

    def program() -> None:
        Thing("a", waits=str(gate))

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(failure, bench.stack(program))
        eventually(lambda: "create" in [what for what, _ in bench.calls()], what="the create")
        (engine,) = engines_of(bench)
        below = engine.children(recursive=True)
        engine.kill()
        running.result(120)
    let_go(gate)
    eventually(lambda: bench.things() == ["a"], what="the end of the create")
    for process in below:
        process.kill()
    assert [one["type"] for one in bench.state()["pending_operations"]] == ["creating"]
    with pytest.raises(automation.errors.ConcurrentUpdateError, match=r"created by .*@.* \(pid \d+\) at "):
        bench.up(no_things)
    bench.stack(no_things).cancel()
    assert "interrupted while creating" in bench.up(no_things).stdout


def test_the_state_is_laid_out_as_the_double_lays_it_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.up(two())
    real = bench.state()
    second = bench.folder / "second"
    second.mkdir()
    double = Bench.make(second, live_in(double_on_path(second), monkeypatch))
    double.up(two())
    imitated = double.state()
    assert set(imitated) <= set(real)
    for name, entry in double.kept().items():
        assert set(entry) - set(bench.kept()[name]) == set()
        for bag in ("inputs", "outputs"):
            assert set(entry[bag]) == set(bench.kept()[name][bag])
            assert set(entry[bag]["__provider"]) == set(bench.kept()[name][bag]["__provider"])
    assert [one["urn"] for one in imitated["resources"]] == [one["urn"] for one in real["resources"]]
    assert json.loads(bench("stack", "output", "--json").stdout).keys() == {"address"}
