"""A scikit-learn forest on colour histograms: one fit and no epochs, so it is complete early.

[training]
entrypoint = "forest:train"
requirements = "requirements.txt"    # scikit-learn
license = "MIT"
hyperparameters = {trees = 200}
"""

from pathlib import Path

import joblib
from PIL import Image
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score, f1_score

from gpu_offload.remote_job.entrypoint import Trained, TrainingContext


def read(folder: Path) -> tuple[list[list[int]], list[str]]:
    """Return each picture's 768 histogram counts, and its class: the name of its folder."""
    rows, labels = [], []
    for path in sorted(folder.glob("*/*")):
        with Image.open(path) as image:
            rows.append(image.convert("RGB").resize((64, 64)).histogram())
        labels.append(path.parent.name)
    return rows, labels


def train(context: TrainingContext) -> Trained:
    """Fit once; `stopped_early` says that no further epoch is to come."""
    trees = int(context.spec.hyperparameters.get("trees", 200))
    forest = RandomForestClassifier(trees, random_state=context.spec.seed, n_jobs=-1)
    forest.fit(*read(context.tree / "train"))
    rows, labels = read(context.tree / "val")
    predicted = forest.predict(rows)
    metrics = {
        "accuracy": float(accuracy_score(labels, predicted)),
        "f1_macro": float(f1_score(labels, predicted, average="macro", zero_division=0)),
    }
    context.epoch(1, metrics=metrics)
    model = context.output / "forest.joblib"
    joblib.dump(forest, model)
    return Trained(model, metrics, stopped_early=True)
