"""Which split an image falls into."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_offload.dataset.split import SPLITS, SplitRule, assign

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30)


@given(names, st.integers(0, 1000))
def test_a_name_always_falls_into_the_same_split(name, seed):
    rule = SplitRule(seed=seed, val=0.3, test=0.2)
    assert assign(name, rule) == assign(name, rule)
    assert assign(name, rule) in SPLITS


@given(names)
def test_composed_and_decomposed_names_split_alike(name):
    rule = SplitRule()
    forms = {assign(unicodedata.normalize(form, name), rule) for form in ("NFC", "NFD")}
    assert len(forms) == 1


@given(names, st.floats(0.0, 0.5), st.floats(0.0, 0.49))
def test_a_larger_val_only_ever_moves_images_into_it(name, val, more):
    if assign(name, SplitRule(val=val)) == "val":
        assert assign(name, SplitRule(val=val + more)) == "val"


def test_the_fractions_are_kept_and_the_seed_matters():
    names = [f"{index:05}.jpg" for index in range(5000)]
    splits = [assign(name, SplitRule(val=0.2, test=0.1)) for name in names]
    assert abs(splits.count("val") / 5000 - 0.2) < 0.03
    assert abs(splits.count("test") / 5000 - 0.1) < 0.03
    assert splits != [assign(name, SplitRule(seed=1, val=0.2, test=0.1)) for name in names]


def test_the_rule_never_changes_between_versions():
    """A changed hash would reshuffle everybody's validation split."""
    split = "".join(assign(f"{index:05}.jpg", SplitRule(val=0.3, test=0.2))[1] for index in range(24))
    assert split == "aerrrreerrrrarraraeaeaea"


@pytest.mark.parametrize("fractions", [{"val": 1.0}, {"val": -0.1}, {"val": 0.6, "test": 0.4}])
def test_fractions_that_leave_nothing_to_train_on_are_refused(fractions):
    with pytest.raises(ValueError, match="fractions"):
        SplitRule(**fractions)


@given(
    st.sets(st.text(min_size=1, max_size=8), min_size=1, max_size=60), st.integers(2, 6), st.floats(0, 0.5)
)
def test_folds_validate_every_image_once_and_never_test_images(names, parts, test):
    splits = {
        n: [assign(n, SplitRule(seed=3, test=test, fold=(k, parts))) for k in range(1, parts + 1)]
        for n in names
    }
    for found in splits.values():
        assert found == ["test"] * parts or (found.count("val") == 1 and found.count("train") == parts - 1)


def test_a_rule_without_a_fold_is_described_as_before():
    assert SplitRule().description() == {"seed": 0, "val": 0.2, "test": 0.0}
    rule = SplitRule(seed=2, fold=(2, 5))
    assert SplitRule.of(rule.description()) == rule
    with pytest.raises(ValueError, match="fold"):
        SplitRule(fold=(6, 5))
