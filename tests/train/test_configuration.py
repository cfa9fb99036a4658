import pytest

from laconic.coder.errors import LaconicError
from laconic.train.configuration import (
    DOMAINS,
    build_recipe,
    dump_recipe,
    load_recipe,
    read_overrides,
    read_yaml,
    recipe_names,
)


@pytest.mark.parametrize("name", recipe_names(DOMAINS))
def test_domains_change_a_tier(name, tmp_path, monkeypatch):
    recipe, tier = load_recipe("nano", name), load_recipe("nano")
    assert recipe.name == name
    assert recipe.tokenizer != tier.tokenizer
    assert recipe.training.max_steps == 250
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text("training: {seed: 5}\n")
    assert load_recipe("nano", name) == recipe  # a corpus may have that name
    assert load_recipe("nano", f"./{name}").training.seed == 5


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_are_sound_and_survive_yaml(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe.name == name
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe))
    assert build_recipe(read_yaml(path)) == recipe


def test_overrides_win_over_the_file_and_the_file_over_the_tier(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("training: {minutes: 3, seed: 5}\n")
    recipe = load_recipe(
        "nano", str(path), read_overrides(["--training.seed=7", "--training.learning_rate", "1e-3"])
    )
    assert recipe.training.minutes == 3
    assert recipe.training.seed == 7
    assert recipe.training.learning_rate == pytest.approx(1e-3)


def test_all_faults_at_once():
    with pytest.raises(LaconicError) as error:
        build_recipe({"training.minuts": 3, "model.hid_dim": 3, "model.d_model": "wide", "model.ffn": "gelu"})
    message = str(error.value)
    assert "did you mean training.minutes?" in message
    assert "model.hid_dim is unknown, did you mean model.head_dim?" in message
    assert "model.d_model is 'wide'" in message
    assert "relu2" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("training.batch_size", 1.5, "expected a whole number"),
        ("training.max_steps", "many", "expected a whole number or null"),
        ("training.learning_rate", "fast", "expected a number"),
        ("training.compile", "maybe", "expected true or false or null"),
        ("distillation.teachers", "default", r"expected a list, such as \[A, B\]"),
        ("tokenizer.kind", "bqe", "expected one of 'bpe', 'wordpiece', 'unigram', 'bytes'"),
    ],
)
def test_what_is_expected_is_said_in_words(key, value, expected):
    with pytest.raises(LaconicError, match=f"{key} is {value!r}, {expected}$"):
        build_recipe({key: value})


@pytest.mark.parametrize("key", ["training.batch_size", "kind", "data.streaming", "distillation.teachers"])
def test_null_only_where_it_is_a_value(key):
    with pytest.raises(LaconicError, match=f"faults: {key} is null: give a value, or leave it out$"):
        build_recipe({key: None})
    assert build_recipe({"training.compile": None}).training.compile is None


def test_a_section_without_settings(tmp_path):
    (tmp_path / "blank.yaml").write_text("training:\n")
    with pytest.raises(LaconicError, match="training is a section: give settings of it, such as training"):
        load_recipe("nano", str(tmp_path / "blank.yaml"))


def test_all_impossible_values_at_once():
    with pytest.raises(LaconicError) as error:
        build_recipe({"model.window": 1000, "training.seq_len": 1, "training.minutes": None})
    message = str(error.value)
    assert "model.window is 1000, allowed are whole numbers from 2 to 512" in message
    assert "training.seq_len is 1" in message
    assert "both null" in message


@pytest.mark.parametrize("words", [["minutes", "3"], ["--training.minutes"], ["-x", "3"]])
def test_settings_must_look_like_settings(words):
    with pytest.raises(LaconicError, match="is no setting"):
        read_overrides(words)


def test_unreadable_recipes(tmp_path):
    with pytest.raises(LaconicError, match="settings of domains are chinese"):
        read_yaml(tmp_path / "missing.yaml")
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(LaconicError, match="must hold settings"):
        read_yaml(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    with pytest.raises(LaconicError, match="is no YAML"):
        read_yaml(tmp_path / "broken.yaml")
