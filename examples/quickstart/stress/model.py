"""A classifier of tumours, trained on the data set that scikit-learn ships."""

from dataclasses import dataclass

import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler


@dataclass(frozen=True)
class Trained:
    """A fitted model and the rows that it has not seen."""

    model: Pipeline
    rows: pd.DataFrame
    labels: pd.Series


def estimator(kind: str, seed: int):
    if kind == "linear":
        return LogisticRegression(max_iter=1000)
    if kind == "forest":
        return RandomForestClassifier(n_estimators=150, random_state=seed)
    from lightgbm import LGBMClassifier

    return LGBMClassifier(n_estimators=150, random_state=seed, verbose=-1)


def train(kind: str, seed: int) -> Trained:
    data = load_breast_cancer(as_frame=True)
    train_rows, rows, train_labels, labels = train_test_split(
        data.data, data.target, test_size=0.4, random_state=7, stratify=data.target
    )
    model = make_pipeline(SimpleImputer(), StandardScaler(), estimator(kind, seed))
    model.set_output(transform="pandas")
    model.fit(train_rows, train_labels)
    return Trained(model, rows, labels)
