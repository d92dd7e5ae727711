import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from bltdata.entropy import EntropyModel
from bltdata.patching import PatchRule
from bltmodel.cli import main
from bltmodel.model import BLT
from bltmodel.sampling_config import SamplingConfig
from tests.bltmodel.datasets import RULE, entropy_model, opinionated_blt


@pytest.fixture(scope="module")
def folders(trained, tmp_path_factory) -> list[str | Path]:
    """The options that name the models; the BLT's weights are ones that say something."""
    about = json.loads((trained.blt / "config.json").read_text(encoding="utf-8"))
    blt = tmp_path_factory.mktemp("generate") / "blt"
    opinionated_blt().save(blt, {"data": about["data"]})
    return ["--model", blt, "--entropy-model", trained.entropy_model]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["generate", *map(str, arguments)])


def expected(folders: list[str | Path], prompt: bytes, max_new_bytes: int, seed: int = 0, **settings) -> bytes:
    scorer = EntropyModel.load(folders[3])
    (new,) = BLT.load(folders[1]).generate(
        [prompt], entropy_model=scorer, rule=RULE, max_new_bytes=max_new_bytes, seed=seed, sampling=SamplingConfig(**settings)
    )
    return new


def test_prompt_and_continuation_go_to_stdout_as_they_are(folders):
    new = expected(folders, "h\u00e9".encode(), 12, stop_at_eos=False)
    assert len(new) == 12
    with pytest.raises(UnicodeDecodeError):
        new.decode()
    result = run(*folders, "--prompt", "h\u00e9", "--max-new-bytes", "12", "--no-stop-at-eos")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout_bytes == "h\u00e9".encode() + new + b"\n"


def test_json_and_settings(folders, tmp_path):
    prompt = b"any\xff\x00 bytes\n"
    (tmp_path / "prompt").write_bytes(prompt)
    options = ["--max-new-bytes", "9", "--temperature", "0.7", "--top-k", "50", "--top-p", "0.9", "--seed", "3"]
    result = run(*folders, "--prompt-file", tmp_path / "prompt", *options, "--json")
    new = expected(folders, prompt, 9, seed=3, temperature=0.7, top_k=50, top_p=0.9)
    assert json.loads(result.stdout) == {
        "prompt_hex": prompt.hex(),
        "new_hex": new.hex(),
        "text": (prompt + new).decode(errors="replace"),
    }
    assert result.stdout.count("\n") == 1
    assert new != expected(folders, prompt, 9, seed=4, temperature=0.7, top_k=50, top_p=0.9)


def test_without_a_prompt_a_document_begins(folders):
    result = run(*folders, "--max-new-bytes", "5", "--temperature", "0")
    assert result.stdout_bytes == expected(folders, b"", 5, temperature=0.0) + b"\n"


def test_rule_and_rounding_are_those_of_the_shards(folders, tmp_path, monkeypatch):
    shutil.copytree(folders[1], tmp_path / "blt")
    about = json.loads((tmp_path / "blt" / "config.json").read_text(encoding="utf-8"))
    rule = {"scheme": "entropy", "relative_threshold": 0.25, "reset_at_newline": True}
    about["data"] |= {"patch_rule": rule, "entropy_precision": "float16"}
    about["data"]["entropy_model"]["context"] |= {"reset_at_newline": True, "precision": "bfloat16"}
    (tmp_path / "blt" / "config.json").write_text(json.dumps(about))
    asked = []
    monkeypatch.setattr(BLT, "stream", lambda self, prompt, settings: asked.append(settings) or iter([b""]))
    assert run("--model", tmp_path / "blt", "--entropy-model", folders[3], "--no-cache", "--precision", "bfloat16").exit_code == 0
    assert (asked[0].rule, asked[0].entropy_precision) == (PatchRule(**rule), "float16")
    assert asked[0].entropy_model.fingerprint == entropy_model().fingerprint
    assert (asked[0].reset_at_newline, asked[0].scoring_dtype) == (True, torch.bfloat16)
    assert (asked[0].use_cache, asked[0].precision) == (False, torch.bfloat16)


def test_several_prompts_go_on_side_by_side(folders):
    prompts, settings = [b"one", b"", b"another one"], {"max_new_bytes": 6, "seed": 2}
    news = [expected(folders, prompt, 6, seed=2) for prompt in prompts]
    options = [option for prompt in prompts for option in ("--prompt", prompt.decode())]
    result = run(*folders, *options, "--max-new-bytes", settings["max_new_bytes"], "--seed", settings["seed"], "--json")
    objects = json.loads(result.stdout)["continuations"]
    assert [bytes.fromhex(each["new_hex"]) for each in objects] == news
    result = run(*folders, *options, "--max-new-bytes", 6, "--seed", 2)
    assert result.stdout_bytes == b"\n\n".join(prompt + new for prompt, new in zip(prompts, news, strict=True)) + b"\n"


def test_without_caches_the_same_comes(folders):
    options = ["--prompt", "and so", "--max-new-bytes", "9"]
    assert run(*folders, *options).stdout_bytes == run(*folders, *options, "--no-cache").stdout_bytes


def test_stop_strings_and_beams(folders):
    whole = expected(folders, b"a", 30, stop_at_eos=False)
    printable = next(value for value in whole[3:] if 0x20 < value < 0x7F)
    result = run(*folders, "--prompt", "a", "--max-new-bytes", "30", "--no-stop-at-eos", "--stop", chr(printable), "--stop", "unlikely")
    assert result.stdout_bytes == b"a" + whole[: whole.index(printable)] + b"\n"
    result = run(*folders, "--prompt", "a", "--max-new-bytes", "5", "--num-beams", "3")
    assert result.stdout_bytes == b"a" + expected(folders, b"a", 5, num_beams=3) + b"\n"


def test_a_rule_that_reads_no_entropies_needs_no_entropy_model(folders, tmp_path):
    shutil.copytree(folders[1], tmp_path / "blt")
    about = json.loads((tmp_path / "blt" / "config.json").read_text(encoding="utf-8"))
    about["data"] |= {"patch_rule": {"scheme": "space"}}
    (tmp_path / "blt" / "config.json").write_text(json.dumps(about))
    result = run("--model", tmp_path / "blt", "--max-new-bytes", "4", "--prompt", "a b")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout_bytes.startswith(b"a b")


def test_a_mistake_ends_in_one_sentence(folders, tmp_path):
    entropy_model(1).save(tmp_path / "other")
    opinionated_blt().save(tmp_path / "untrained")
    (tmp_path / "prompt").write_bytes(b"x")
    model, scorer = folders[:2], folders[2:]
    for arguments, message in [
        ([*model, "--entropy-model", tmp_path / "other"], "other isn't the entropy model of the shards that"),
        ([*model, "--entropy-model", folders[1]], "holds bltmodel.BLT, but bltdata.EntropyModel is wanted here"),
        (["--model", tmp_path / "untrained", *scorer], "untrained doesn't say what it was trained on"),
        (["--model", tmp_path / "nothing", *scorer], "nothing holds no model"),
        (["--model", folders[3], *scorer], "holds bltdata.EntropyModel, but bltmodel.BLT is wanted here"),
        ([*folders, "--prompt", "a", "--prompt-file", tmp_path / "prompt"], "Both --prompt and --prompt-file are given"),
        (model, "reads entropies; give the entropy model that scored them with --entropy-model"),
        ([*folders, "--stop", ""], "A stop string is empty"),
        ([*folders, "--min-p", "2"], "min_p is 2.0; it must be from 0 to 1"),
        ([*folders, "--device", "nowhere"], "The device 'nowhere' can't be used here"),
        ([*folders, "--interactive", "--json"], "Both --interactive and --json are given"),
        ([*folders, "--interactive", "--prompt", "a", "--prompt", "b"], "There are 2 prompts, and an interactive session has one text"),
        ([*folders, "--interactive", "--num-beams", "2"], "Both --interactive and --num-beams are given"),
        ([*folders, "--prompt-file", tmp_path / "nothing"], "There is no file or folder"),
        ([*folders, "--prompt-file", tmp_path], "Is a directory"),
        ([*folders, "--temperature", "-1"], "The temperature is -1.0; it must be a finite number, 0 or more"),
        ([*folders, "--temperature", "nan"], "--temperature is nan; it must be a finite number"),
        ([*folders, "--top-k", "0"], "top_k is 0; it must be at least 1"),
        ([*folders, "--top-p", "0"], "top_p is 0.0; it must be above 0 and at most 1"),
    ]:
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (1, ""), message
        assert message in result.stderr
        assert result.stderr.count("\n") == 1


def test_options_out_of_range(folders):
    assert run(*folders, "--max-new-bytes", "-1").exit_code == 2
    assert run(*folders, "--seed", str(2**64)).exit_code == 2
