"""Does the model hold up where production data differ from the training set?"""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

FEATURES = ["mean radius", "mean texture", "mean concavity", "worst area"]


def accuracy(trained, rows, labels=None):
    labels = trained.labels if labels is None else labels
    return accuracy_score(labels, trained.model.predict(rows))


def test_overall_performance(trained, about):
    about("Overall Performance", "HIGH")
    assert accuracy(trained, trained.rows) >= 0.9


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("part", ["low", "high"])
def test_subset_performance(trained, about, feature, part):
    about("Subset Performance", "MEDIUM", feature)
    middle = trained.rows[feature].median()
    subset = trained.rows[feature] <= middle if part == "low" else trained.rows[feature] > middle
    assert accuracy(trained, trained.rows[subset], trained.labels[subset]) >= 0.85


@pytest.mark.parametrize("feature", FEATURES)
def test_missing_values(trained, about, feature):
    about("Missing Values", "MEDIUM", feature)
    rows = trained.rows.copy()
    rows[feature] = np.nan
    assert accuracy(trained, rows) >= 0.85


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("value", [0.0, 1e9, -1e9], ids=["zero", "huge", "negative"])
def test_abnormal_inputs(trained, about, feature, value):
    about("Abnormal Inputs", "LOW", feature)
    rows = trained.rows.head(20).copy()
    rows[feature] = value
    probabilities = trained.model.predict_proba(rows)
    assert np.isfinite(probabilities).all()
    assert np.allclose(probabilities.sum(axis=1), 1.0)


@pytest.mark.parametrize("feature", FEATURES)
def test_feature_perturbation(trained, about, feature):
    about("Feature Perturbation", "HIGH", feature)
    rows = trained.rows.copy()
    noise = np.random.default_rng(5).normal(0, 0.1 * rows[feature].std(), len(rows))
    rows[feature] += noise
    changed = (trained.model.predict(rows) != trained.model.predict(trained.rows)).mean()
    assert changed <= 0.05


def test_text_instead_of_a_number_is_refused(trained, about):
    about("Abnormal Inputs", "HIGH", "mean radius")
    rows = trained.rows.head(3).astype(object)
    rows["mean radius"] = "large"
    with pytest.raises(ValueError):
        trained.model.predict(rows)
