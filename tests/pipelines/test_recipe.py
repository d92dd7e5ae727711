import pytest

from bltdata.config import to_mapping
from bltdata.errors import ConfigError
from pipelines.recipe import read_recipe, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_valid(name):
    recipe = read_recipe(name)
    assert recipe.shards.target_patch_length == 4.5


def test_scoring_and_the_rule_are_reset_each_by_its_own_setting(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[rule]\nreset_at_newline = true\n[shards]\nreset_at_newline = true\ntarget_patch_length = 4.5\n")
    recipe = read_recipe(str(path))
    assert (recipe.rule.reset_at_newline, recipe.shards.reset_at_newline) == (True, True)
    path.write_text("[rule]\nreset_at_newline = true\n")
    assert not read_recipe(str(path)).shards.reset_at_newline
    # Recipes that don't say it keep their key, so nothing that is done is done again.
    assert "reset_at_newline" not in to_mapping(read_recipe("quickstart").shards)


def test_openwebtext_has_the_document_counts_of_the_brief():
    corpus = read_recipe("openwebtext").corpus
    assert "openwebtext" in corpus.corpus[0]
    assert corpus.corpus[0].endswith("#limit=110000")
    assert corpus.validation_corpus is not None
    assert "wikitext-103" in corpus.validation_corpus[0]
    assert corpus.validation_corpus[0].endswith("#limit=100000")


def test_a_preset_is_the_base_of_an_architecture(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[entropy_model]\npreset = "small"\nnum_layers = 2\n[blt]\nwindow = 64\n')
    recipe = read_recipe(str(path))
    assert (recipe.entropy_model.dim, recipe.entropy_model.num_layers) == (256, 2)
    assert (recipe.blt.local_dim, recipe.blt.window) == (128, 64)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[entropy_model]\npreset = 'tiney'\n", "no entropy model preset 'tiney'; the nearest is 'tiny'"),
        ("[blt]\nlatentdim = 3\n", "unknown key 'latentdim'; the nearest is 'latent_dim'"),
        ("[shards]\nreset_at_newline = 1\n", "reset_at_newline"),
        ("[shards]\nreset_scoring_at_newline = true\n", "unknown key 'reset_scoring_at_newline'"),
        ("[shard]\n", "unknown key 'shard'; the nearest is 'shards'"),
        ("[blt_training]\nsteps = 0\n", "steps is 0; it must be at least 1"),
        ("[corpus]\ncorpus = 'python-docs'\n", "'corpus' is 'python-docs'; it must be a list"),
        ("blt = 1\n", "key 'blt' is 1; it must be a table"),
        ("[blt\n", "not valid TOML"),
    ],
)
def test_mistakes_in_a_recipe_are_named(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_recipe(str(path))


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(ConfigError, match="no recipe 'quickstrat'; the nearest is 'quickstart'"):
        read_recipe("quickstrat")
    with pytest.raises(ConfigError, match=r"Cannot read the configuration nowhere\.toml"):
        read_recipe("nowhere.toml")
