"""The harness asks what a direct computation says. Skipped where the extra `eval` isn't installed."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import bltmodel.lm_eval_adapter
from bltdata.errors import CheckpointError, ConfigError
from bltdata.patching import PatchRule
from bltdata.shards import round_entropies
from bltdata.vocab import encode
from bltmodel.lm_eval_adapter import BLTModel
from bltmodel.model import BLT
from bltmodel.sampling_config import SamplingConfig
from tests.bltmodel.datasets import RULE, entropy_model, opinionated_blt, texts

pytest.importorskip("lm_eval", reason="needs lm-evaluation-harness, which is in the extra eval")

PAIRS = [("", "abc"), ("a few words ", "and more"), ("abc", ""), ("", ""), ("h\u00e9 \u4e16", "\u754c\n\n"), ("lone \udc80", "half")]


@pytest.fixture(scope="module")
def blt(trained, tmp_path_factory):
    about = json.loads((trained.blt / "config.json").read_text(encoding="utf-8"))
    folder = tmp_path_factory.mktemp("harness") / "blt"
    opinionated_blt().save(folder, {name: about[name] for name in ("training", "data")})
    return folder


@pytest.fixture(scope="module")
def model(blt, trained) -> BLTModel:
    return BLTModel(blt, trained.entropy_model, device="cpu", context_tokens=200)


def requests(*arguments: tuple) -> list[SimpleNamespace]:
    return [SimpleNamespace(args=each) for each in arguments]


def slow(blt: BLT, context: bytes, continuation: bytes) -> tuple[float, bool]:
    data = context + continuation
    (entropy_nats,) = entropy_model().score([data])
    log_chances = blt.logits(data, RULE.lengths(data, round_entropies(entropy_nats))).double().log_softmax(-1).numpy()
    nats, is_greedy = 0.0, True
    for position, target in enumerate(encode(data).tolist()):
        if position >= len(context):
            nats += log_chances[position, target]
            is_greedy = is_greedy and log_chances[position].argmax() == target
    return nats, is_greedy


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def test_log_likelihoods_are_those_of_the_logits(model, blt):
    found = model.loglikelihood(requests(*PAIRS))
    expected = [slow(BLT.load(blt), encoded(context), encoded(continuation)) for context, continuation in PAIRS]
    assert [nats for nats, _ in found] == pytest.approx([nats for nats, _ in expected], rel=1e-5, abs=1e-9)
    assert [is_greedy for _, is_greedy in found] == [is_greedy for _, is_greedy in expected]
    assert found[2] == found[3] == (0.0, True)
    whole = [context + continuation for context, continuation in PAIRS]
    rolling = model.loglikelihood_rolling(requests(*((text,) for text in whole)))
    assert rolling == pytest.approx([slow(BLT.load(blt), b"", encoded(text))[0] for text in whole], rel=1e-5, abs=1e-9)


def test_what_is_greedy_is_found(model):
    prompts = [f"begin {number}" for number in range(40)]
    found = model.generate_until(requests(*((prompt, {"max_gen_toks": 2}) for prompt in prompts)))
    prompt, new = next(pair for pair in zip(prompts, found, strict=True) if len(pair[1]) == 2 and pair[1].isascii())
    other = new[0] + chr(ord(new[1]) ^ 1)
    assert [is_greedy for _, is_greedy in model.loglikelihood(requests((prompt, new), (prompt, other)))] == [True, False]


def test_a_long_text_leaves_the_continuation_as_much_context_as_fits(blt, trained):
    short = BLTModel(blt, trained.entropy_model, device="cpu", context_tokens=20, stride=10)
    context = "b" * 100 + "a few words"
    # The last token of the window predicts the last byte, so 16 bytes before the continuation are in it.
    inside, outside = (context[:place] + "c" + context[place + 1 :] for place in (len(context) - 16, len(context) - 90))
    found = [nats for nats, _ in short.loglikelihood(requests(*((text, " more") for text in (context, inside, outside))))]
    assert found[2] == pytest.approx(found[0], rel=1e-6)
    assert found[1] != pytest.approx(found[0], rel=1e-4)
    (long,) = short.loglikelihood_rolling(requests(("a few words " * 10,)))
    assert math.isfinite(long)


def test_generation_stops_where_a_task_says(model, blt):
    prompts = texts(6, seed=4)
    prompts = [prompt.decode("latin1") for prompt in prompts]
    settings = {"entropy_model": entropy_model(), "rule": RULE, "max_new_bytes": 12}
    greedy = BLT.load(blt).generate([prompt.encode() for prompt in prompts], sampling=SamplingConfig(temperature=0.0), **settings)
    asked = {"until": [], "max_gen_toks": 12, "do_sample": False, "temperature": 0.7}
    found = model.generate_until(requests(*((prompt, asked) for prompt in prompts)))
    assert found == [new.decode(errors="replace") for new in greedy]
    wanted = next(byte for byte in (new[2:3] for new in greedy if len(new) > 3) if byte.isascii())
    stopped = model.generate_until(requests(*((prompt, {"until": wanted.decode(), "max_gen_toks": 12}) for prompt in prompts)))
    assert stopped == [new.split(wanted)[0].decode(errors="replace") for new in greedy]
    assert stopped != found


def test_a_beam_search_where_a_task_asks_for_one(model, blt):
    settings = {"entropy_model": entropy_model(), "rule": RULE, "max_new_bytes": 5}
    (expected,) = BLT.load(blt).generate([b"a few"], sampling=SamplingConfig(num_beams=3), **settings)
    (found,) = model.generate_until(requests(("a few", {"num_beams": 3, "max_gen_toks": 5, "do_sample": False})))
    assert found == expected.decode(errors="replace")


def test_a_long_text_leaves_its_continuation_room(blt, trained):
    short = BLTModel(blt, trained.entropy_model, device="cpu", context_tokens=40)
    text = "a few words and more of them " * 4
    for new_bytes, kept in ((10, 29), (39, 20), (500, 20)):
        asked = {"max_gen_toks": new_bytes, "do_sample": False}
        whole, end = short.generate_until(requests((text, asked), (text[-kept:], asked)))
        assert whole == end
        (longer,) = short.generate_until(requests((text[-kept - 1 :], asked)))
        assert longer == end


def test_texts_are_cut_and_scored_as_the_shards_were(blt, trained, tmp_path, monkeypatch):
    about = json.loads((blt / "config.json").read_text(encoding="utf-8"))
    about["data"]["source_rules"] = {"code": {"scheme": "byte"}}
    about["data"]["entropy_precision"] = "float16"
    about["data"]["entropy_model"]["context"] |= {"reset_at_newline": True, "precision": "bfloat16"}
    opinionated_blt().save(tmp_path / "blt", {name: about[name] for name in ("training", "data")})
    asked: list[dict] = []
    monkeypatch.setattr(BLT, "generate", lambda self, prompts, **settings: asked.append(settings) or [b""])
    cut = []
    for source, rule in (("code", PatchRule(scheme="byte")), ("prose", RULE)):
        model = BLTModel(tmp_path / "blt", trained.entropy_model, source=source, device="cpu")
        model.generate_until(requests(("a", {})))
        assert asked[-1]["rule"] == rule
        assert (asked[-1]["reset_at_newline"], asked[-1]["scoring_dtype"], asked[-1]["entropy_precision"]) == (
            True,
            torch.bfloat16,
            "float16",
        )
        cut.append(model.loglikelihood(requests(("a few ", "words"))))
    assert cut[0] != cut[1]


def test_settings_of_generation_are_kept_apart(model):
    asked = [
        ("a", {"max_gen_toks": 3}), ("b", {"max_gen_toks": 5}), ("c", {"max_new_tokens": 3}), ("d", {"max_gen_toks": 4, "do_sample": True}),
    ]  # fmt: skip
    together = model.generate_until(requests(*asked))
    assert together == [model.generate_until(requests(each))[0] for each in asked]
    assert together[3] != model.generate_until(requests(("d", {"max_gen_toks": 4})))[0]


class Cache:
    def __init__(self) -> None:
        self.kept: list[tuple] = []

    def add_partial(self, *kept) -> None:
        self.kept.append(kept)


def test_results_go_into_the_harnesss_cache(blt, trained):
    model = BLTModel(blt, trained.entropy_model, device="cpu")
    model.set_cache_hook(cache := Cache())
    asked = ("ab", {"max_gen_toks": 2})
    results = [
        *model.loglikelihood(requests(("a", "b"))),
        *model.loglikelihood_rolling(requests(("ab",))),
        *model.generate_until(requests(asked)),
    ]
    assert cache.kept == [
        ("loglikelihood", ("a", "b"), results[0]), ("loglikelihood_rolling", ("ab",), results[1]), ("generate_until", asked, results[2])
    ]  # fmt: skip


QUESTIONS = [
    {"question": "one and one", "answers": [" two", " three"], "right": 0},
    {"question": "b", "answers": [" c", " d e"], "right": 1},
]


@pytest.fixture
def task(tmp_path) -> dict:
    """A task of multiple choice, and one of perplexity, on a file."""
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS), encoding="utf-8")
    return {
        "task": "questions",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "questions.jsonl")}, "cache_dir": str(tmp_path / "cache")},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{answers}}",
        "doc_to_target": "{{right}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
        "metadata": {"version": 1.0},
    }


def test_a_task_runs_offline(task, blt, trained):
    import lm_eval
    from lm_eval.tasks import TaskManager

    model_args = {"model": str(blt), "entropy_model": str(trained.entropy_model)}
    # Without the list of all tasks, which takes long to read.
    alone = TaskManager(include_defaults=False)
    found = lm_eval.simple_evaluate("blt", model_args=model_args, tasks=[task], task_manager=alone, device="cuda:0", bootstrap_iters=0)
    loaded = BLT.load(blt)
    right = 0
    for each in QUESTIONS:
        nats = [slow(loaded, each["question"].encode(), answer.encode())[0] for answer in each["answers"]]
        right += int(np.argmax(nats)) == each["right"]
    assert found["results"]["questions"]["acc,none"] == right / 2


def test_the_command_line_runs_a_task(task, blt, trained, tmp_path, monkeypatch):
    (tmp_path / "tasks").mkdir()
    # JSON is YAML.
    (tmp_path / "tasks" / "questions.yaml").write_text(json.dumps(task), encoding="utf-8")
    sizes = []
    monkeypatch.setattr(
        BLTModel, "_score", lambda self, pairs, score=BLTModel._score: sizes.append(self._rows_at_once) or score(self, pairs)
    )
    arguments = ["--model", "blt", "--model_args", f"model={blt},entropy_model={trained.entropy_model}", "--tasks", "questions"]
    arguments += ["--include_path", str(tmp_path / "tasks"), "--batch_size", "8", "--max_batch_size", "4", "--device", "cpu"]
    monkeypatch.setattr("sys.argv", ["lm_eval", *arguments, "--output_path", str(tmp_path / "results")])
    bltmodel.lm_eval_adapter.main()
    assert sizes == [4]
    (results,) = (tmp_path / "results").rglob("results_*.json")
    assert "acc,none" in json.loads(results.read_text(encoding="utf-8"))["results"]["questions"]


def test_the_command_line_knows_the_model_and_ends_mistakes_in_a_sentence(monkeypatch, tmp_path):
    from lm_eval import __main__ as command
    from lm_eval.api.registry import get_model

    monkeypatch.setattr(command, "cli_evaluate", lambda: get_model("blt").create_from_arg_string(f"model={tmp_path / 'nothing'}"))
    with pytest.raises(SystemExit, match=r"Error: .*nothing holds no model"):
        bltmodel.lm_eval_adapter.main()


def test_mistakes(blt, trained, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"reads entropies; give the entropy model that scored them"):
        BLTModel(blt, device="cpu")
    with pytest.raises(CheckpointError, match=r"holds bltmodel.BLT, but bltdata.EntropyModel is wanted here"):
        BLTModel(blt, blt, device="cpu")
    for batch_size in ("many", "0", 0, "-1"):
        with pytest.raises(ConfigError, match=f"The batch size is {batch_size!r}; it must be a whole number from 1, or auto"):
            BLTModel(blt, trained.entropy_model, device="cpu", batch_size=batch_size)
    with pytest.raises(ConfigError, match="There is no model; give the folder of a trained BLT"):
        BLTModel(device="cpu")
    with pytest.raises(ConfigError, match="A BLT has no argument 'entropymodel'; the nearest is 'entropy_model'"):
        BLTModel(blt, entropymodel="x")
    with pytest.raises(ConfigError, match="The stride is 33 tokens; it must be at most 32, the context"):
        BLTModel(blt, trained.entropy_model, device="cpu", stride=33)
    asked = BLTModel(blt, trained.entropy_model, device="cpu")
    with pytest.raises(ConfigError, match=r"A task sets 'length_penalty' for generating, and a BLT knows until, .*; leave it out"):
        asked.generate_until(requests(("a", {"length_penalty": 3})))
    with pytest.raises(ConfigError, match=r"A task sets do_sample, and num_beams to 3, .*; leave one out"):
        asked.generate_until(requests(("a", {"num_beams": 3, "do_sample": True})))
    about = json.loads((blt / "config.json").read_text(encoding="utf-8"))
    about["data"]["source_rules"] = {"code": about["data"]["patch_rule"]}
    opinionated_blt().save(tmp_path / "sources", {name: about[name] for name in ("training", "data")})
    with pytest.raises(ConfigError, match=r"Nothing says with which rule to cut the text: .* code or any other"):
        BLTModel(tmp_path / "sources", trained.entropy_model, device="cpu")
    monkeypatch.setattr(PatchRule, "is_incremental", False)
    with pytest.raises(ConfigError, match=r"The patches that .*blt was trained on look ahead, .*; train on shards of another rule"):
        BLTModel(blt, trained.entropy_model, device="cpu")
    monkeypatch.setattr(bltmodel.lm_eval_adapter, "LM", object)
    with pytest.raises(ConfigError, match=r"not installed; run pip install 'blt-toolkit\[eval\]'"):
        BLTModel(blt, trained.entropy_model, device="cpu")
    with pytest.raises(SystemExit, match="not installed"):
        bltmodel.lm_eval_adapter.main()
