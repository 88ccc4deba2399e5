"""The summaries of whole documents, asked of the engine double and compared with the reference's recursion."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from recipes.errors import InvalidRecipe
from runners.measurement import request_counts
from runners.text.splitter import SEPARATORS
from runners.workloads.summarize import Summarize
from runners.workloads.summarize.outputs import Outputs
from tests.emulators.engine import LLAMACPP_CONTEXT, VLLM_CONTEXT, Break, EngineDouble, Refuse, Say, first_sentence
from tests.runners.summaries import CHUNK_OVERLAP, CHUNK_SIZE, COUNTER, KEY, TEMPLATE, Bench, prose, reference


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def first_words(prompt: str) -> str:
    return " ".join(prompt.removeprefix("Summarize: ").split()[:9]) + " . "


def one_word(prompt: str) -> str:
    return prompt.split()[1]


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_a_short_document_is_one_request(bench: Bench, api: str) -> None:
    text = "A short text.  \n\nIt is sent as it stands."
    bench.write(short=text)
    engine = EngineDouble(key=KEY)
    taken = bench.run(engine, api=api)
    (asked,) = engine.asked
    assert asked.prompt == f"Summarize: {text}"
    assert asked.path == ("/v1/chat/completions" if api == "chat" else "/v1/completions")
    assert bench.summary("short") == "Summarize: A short text."
    (record,) = taken.records
    assert (record.id, record.document, record.level, record.index) == ("short.txt/1/0", "short.txt", 1, 0)
    assert taken.outputs == [bench.outputs / "short-analysis-owner_model-7b-0000.json"]
    assert list(bench.outputs.iterdir()) == taken.outputs


@pytest.mark.parametrize("separators", sorted(SEPARATORS))
@pytest.mark.parametrize("seed", range(4))
def test_a_long_document_is_summarised_as_the_reference_does(bench: Bench, separators: str, seed: int) -> None:
    text = prose(seed, 150)
    bench.write(long=text)
    engine = EngineDouble(answer=first_words)
    taken = bench.run(engine, separators=separators)
    summary, prompts = reference(text, separators, first_words)
    assert bench.summary("long") == summary
    assert Counter(asked.prompt for asked in engine.asked) == Counter(prompts)
    assert max(record.level for record in taken.records) >= 3
    assert taken.expected == len(taken.records) == len(prompts)
    assert len({record.id for record in taken.records}) == len(prompts)


def test_a_long_text_that_cannot_be_cut_is_summarised_twice_as_the_reference_does(bench: Bench) -> None:
    text = "no full stop and no line " * 30
    bench.write(uncut=text)
    engine = EngineDouble(answer=first_words)
    bench.run(engine, separators="sentences")
    summary, prompts = reference(text, "sentences", first_words)
    assert (bench.summary("uncut"), [asked.prompt for asked in engine.asked]) == (summary, prompts)
    assert len(prompts) == 2


def test_the_buck_slip_has_the_references_fields_and_no_key(bench: Bench) -> None:
    bench.write(book="Ünïcode text. More.")
    engine = EngineDouble(key=KEY)
    bench.run(engine, max_tokens=33, temperature=0.7, concurrency=5, separators="sentences")
    slip = bench.output("book-analysis-owner_model-7b-0000.json")["buck_slip"]
    assert slip.pop("summarize_duration_seconds") >= 0
    assert "recursive" in slip.pop("text_splitter")
    assert "/v1/completions" in slip.pop("api_client")
    assert slip == {
        "httpx_max_connections": 5,
        "httpx_max_keepalive_connections": 5,
        "use_fast": True,
        "use_batched_tokenization": False,
        "chunk_size": CHUNK_SIZE,
        "chunk_overlap": CHUNK_OVERLAP,
        "api_url": f"{engine.url}/v1",
        "model_identifier": "owner/model-7b",
        "max_tokens": 33,
        "temperature": 0.7,
        "model_local_identifier": "owner_model-7b",
        "prompt_template": TEMPLATE,
        "prompt_template_filename": "inline",
        "strategy": "recursive",
        "tokenizer": COUNTER.name,
        "document": str(bench.folder / "book.txt"),
        "length_of_sample_text_in_characters": 19,
    }
    for file in bench.outputs.iterdir():
        assert KEY not in file.read_text(encoding="utf-8")


def test_outputs_take_the_first_free_number_and_replace_nothing(tmp_path: Path) -> None:
    for taken in ("x-0000.json", "x-0002.json"):
        (tmp_path / taken).write_text("older")
    assert Outputs(tmp_path).write("x", {"summary": "ü"}).name == "x-0001.json"
    assert Outputs(tmp_path).write("x", {"summary": "2"}).name == "x-0003.json"
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"x-000{n}.json" for n in range(4)]
    assert (tmp_path / "x-0000.json").read_text() == (tmp_path / "x-0002.json").read_text() == "older"
    assert json.loads((tmp_path / "x-0001.json").read_text(encoding="utf-8")) == {"summary": "ü"}


def test_a_second_run_keeps_the_first_ones_outputs(bench: Bench) -> None:
    bench.write(book="First sentence. Second.")
    bench.run(EngineDouble())
    bench.run(EngineDouble(answer=lambda _: "another answer"))
    assert bench.summary("book") == "Summarize: First sentence."
    assert bench.output("book-analysis-owner_model-7b-0001.json")["summary"] == "another answer"


def test_the_same_stem_in_two_folders(bench: Bench) -> None:
    for name in ("one", "two"):
        (bench.folder / name).mkdir()
        (bench.folder / name / "book.txt").write_text(f"From {name}. The rest.")
    taken = bench.run(EngineDouble(), inputs=["one/book.txt", "two/book.txt"])
    names = [f"book-analysis-owner_model-7b-000{n}.json" for n in range(2)]
    assert sorted(bench.output(name)["summary"] for name in names) == ["Summarize: From one.", "Summarize: From two."]
    assert {record.document for record in taken.records} == {
        str(bench.folder / name / "book.txt") for name in ("one", "two")
    }


def test_the_estimate_is_what_the_first_level_takes(bench: Bench) -> None:
    bench.write(a=prose(1, 40), b="Short one.")
    prepared = bench.prepare(max_tokens=50)
    estimate = Summarize().estimate(prepared)
    taken = bench.run(EngineDouble(usage=False), max_tokens=50)
    first = [record for record in taken.records if record.level == 1]
    assert (estimate.documents, estimate.requests) == (2, len(first))
    assert estimate.prompt_tokens == sum(record.prompt_tokens for record in first)
    # The levels above are not known yet: no chunk of theirs may be longer than was said.
    assert estimate.longest_request_tokens >= max(record.prompt_tokens for record in taken.records) + 50


def test_the_estimate_bounds_the_levels_above_and_hits_them_once_answers_are_known(bench: Bench) -> None:
    bench.write(a=prose(1, 400), b=prose(2, 200), c=prose(3, 200), d="Short one.")
    settings = {"max_tokens": 50, "chunk_size": 240, "chunk_overlap": 40}
    estimate = Summarize().estimate(bench.prepare(**settings))
    taken = bench.run(EngineDouble(usage=False), **settings).records
    output = sum(record.output_tokens for record in taken)
    for total, done in (
        (estimate.totals.requests, len(taken)),
        (estimate.totals.prompt_tokens, sum(record.prompt_tokens for record in taken)),
        (estimate.totals.output_tokens, output),
        (estimate.totals.levels, max(record.level for record in taken)),
    ):
        assert total.low <= done <= total.high
    levels = estimate.work.levels(output / len(taken))
    done_by_level = Counter(record.level for record in taken)
    assert [level.documents for level in levels][:1] == [4]
    assert levels[0].requests == done_by_level[1]
    assert sum(level.requests for level in levels) == pytest.approx(len(taken), rel=0.1)
    assert sum(level.prompt_tokens for level in levels) == pytest.approx(
        sum(record.prompt_tokens for record in taken), rel=0.1
    )


def test_a_record_holds_what_was_measured(bench: Bench) -> None:
    bench.write(book="One two three four five. Six.")
    engine = EngineDouble(faults={1: Refuse(429)}, piece_pause_s=0.01)
    (record,) = bench.run(engine).records
    assert (record.status, record.tries, record.tokens_from) == ("ok", 2, "engine")
    assert (record.prompt_tokens, record.output_tokens, record.finish_reason) == (7, 6, "stop")
    assert record.ttft_s is not None
    assert record.tpot_s == pytest.approx((record.e2e_s - record.ttft_s) / 5)
    assert record.tpot_s is not None
    # The first piece is read before the second is sent, however late.
    assert 5 * record.tpot_s >= engine.asked[-1].sent_at[-1] - engine.asked[-1].sent_at[1] - 1e-3 > 0.03


def test_tokens_are_counted_here_where_the_engine_reports_none(bench: Bench) -> None:
    bench.write(book="One two three four five. Six.")
    engine = EngineDouble(usage=False)
    (record,) = bench.run(engine).records
    assert record.tokens_from == "client"
    assert record.prompt_tokens == COUNTER.count(engine.asked[0].prompt)
    assert record.output_tokens > 0


def test_summaries_that_do_not_shrink_end_the_document(bench: Bench) -> None:
    bench.write(book=prose(3, 60))
    engine = EngineDouble(answer=lambda prompt: prompt.removeprefix("Summarize: "))
    message = bench.fail(engine)
    assert "book.txt: its summaries do not shrink" in message
    assert "workload.max_tokens" in message
    assert {record.level for record in bench.taken.records} == {1}


def test_the_depth_limit_ends_the_document(bench: Bench) -> None:
    bench.write(book=prose(3, 60))
    message = bench.fail(EngineDouble(), max_levels=1)
    assert "book.txt: not finished after 1 level" in message
    assert "workload.max_levels" in message
    assert {record.level for record in bench.taken.records} == {1}


def test_the_last_allowed_level_may_finish(bench: Bench) -> None:
    bench.write(book="Short enough. For one level.")
    bench.run(EngineDouble(), max_levels=1)
    assert bench.summary("book") == "Summarize: Short enough."


def test_an_empty_answer_fails_its_document(bench: Bench) -> None:
    bench.write(book=prose(5, 30))
    message = bench.fail(EngineDouble(faults={2: Say("  \n")}), concurrency=1)
    assert "1 of 1 documents failed: book.txt: book.txt/1/1: empty answer" in message
    assert "on_empty: skip" in message
    assert request_counts(bench.taken.records)["failed"] == 1


def test_an_empty_answer_may_be_skipped_but_is_counted(bench: Bench) -> None:
    text = prose(5, 30)
    bench.write(book=text)
    engine = EngineDouble(answer=one_word, faults={2: Say("")})
    taken = bench.run(engine, concurrency=1, on_empty="skip")
    failed = [record for record in taken.records if record.status == "failed"]
    assert [(record.id, record.error) for record in failed] == [("book.txt/1/1", "empty answer")]
    first_level = [a.prompt for a, r in zip(engine.asked, taken.records, strict=True) if r.level == 1]
    joined = "\n".join(one_word(prompt) for i, prompt in enumerate(first_level) if i != 1)
    assert [asked.prompt for asked in engine.asked[len(first_level) :]] == [f"Summarize: {joined}"]


def test_nothing_but_empty_answers_fails_also_where_they_are_skipped(bench: Bench) -> None:
    bench.write(book="Short.")
    assert "every answer of level 1 was empty" in bench.fail(EngineDouble(answer=lambda _: ""), on_empty="skip")
    assert list(bench.outputs.iterdir()) == []


def test_truncated_answers_are_counted(bench: Bench) -> None:
    bench.write(a="Short one.", b="Short two.")
    taken = bench.run(EngineDouble(faults={1: Say("cut off in the", "length")}))
    assert request_counts(taken.records) == {"ok": 2, "failed": 0, "retried": 0, "truncated": 1}


@pytest.mark.parametrize("fault", [VLLM_CONTEXT, LLAMACPP_CONTEXT], ids=["vllm", "llamacpp"])
def test_a_chunk_beyond_the_context_is_explained(bench: Bench, fault: Refuse) -> None:
    bench.write(book="Short.")
    message = bench.fail(EngineDouble(faults={1: fault}))
    assert "lower workload.chunk_size" in message
    assert fault.message in message


def test_one_failed_document_does_not_take_the_others_with_it(bench: Bench) -> None:
    bench.write(a=prose(1, 30), b="A short one. Fine.", c=prose(2, 45))
    engine = EngineDouble(faults={2: Refuse(400, "bad words")})
    message = bench.fail(engine, concurrency=1)
    assert message == "1 of 3 documents failed: a.txt: a.txt/1/0: HTTP 400: bad words"
    assert sorted(path.name[0] for path in bench.taken.outputs) == ["b", "c"]
    assert bench.summary("c") == reference((bench.folder / "c.txt").read_text(), "paragraphs", first_sentence)[0]
    (failed,) = [record for record in bench.taken.records if record.status == "failed"]
    assert (failed.id, failed.tries, failed.output_tokens) == ("a.txt/1/0", 1, 0)


def test_the_rest_of_a_failed_document_is_not_asked_for(bench: Bench) -> None:
    bench.write(book=prose(1, 120))
    engine = EngineDouble(faults={1: Refuse(400)})
    bench.fail(engine, concurrency=1)
    assert len(engine.asked) <= 2 < bench.taken.expected


def test_a_request_that_was_given_up_is_recorded_with_its_tries(bench: Bench) -> None:
    bench.write(book="Short.")
    message = bench.fail(EngineDouble(faults=dict.fromkeys(range(1, 9), Break.CUT)))
    (record,) = bench.taken.records
    assert (record.status, record.tries, bench.taken.texts) == ("failed", 3, [None])
    assert "after 3 tries" in message
    assert request_counts(bench.taken.records) == {"ok": 0, "failed": 1, "retried": 1, "truncated": 0}


def test_every_input_that_cannot_be_read_is_named(bench: Bench) -> None:
    bench.write(good="Text.", blank=" \n\t\n")
    (bench.folder / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(InvalidRecipe) as caught:
        bench.prepare()
    problems = {Path(problem.file).name: problem for problem in caught.value.problems}
    assert set(problems) == {"blank.txt", "latin.txt"}
    assert problems["blank.txt"].code == "empty"
    assert (problems["latin.txt"].code, problems["latin.txt"].message) == ("encoding", "not UTF-8: byte 3 is 0xe9")
