"""Tune small CNNs to tell how safe (livelier, wealthier, ...) people find a street view of Place Pulse 2.0.

python examples/placepulse.py --data-dir data --study safer     (the data: tunekit download placepulse --data-dir data)
With a GPU, --space placepulse --preprocessing resnet fine-tunes torchvision's pretrained models at 224 px.
"""

import typer

import tunekit
from tunekit import figures


def main(
    data_dir: str = "data",
    study: str = "safer",
    space: str = "placepulse_small",  # small CNNs at 64 px
    preprocessing: str | None = None,
    num_trials: int = 8,
    max_epochs: int = 10,
    folder: str = "experiments",
) -> None:
    dataset = tunekit.load_dataset("placepulse", data_dir=data_dir, study=study, preprocessing=preprocessing)
    results = tunekit.run(space, dataset, num_trials=num_trials, max_epochs=max_epochs, folder=folder)
    print(f"best config: {results.best_config}")
    tested = results.test()
    for name in ("test_mse", "test_pearson", "test_pairwise_accuracy"):
        if tested.get(name) is not None:  # the last one needs votes.tsv
            print(f"{name} {tested[name]:.3f}")
    predicted = results.predict(dataset.test.images)["value"].to_numpy()
    page = results.folder / "predicted_against_true.html"
    figures.predicted_against_true(predicted, dataset.test.targets, title=study).write_html(page)
    print(f"figure: {page}")


if __name__ == "__main__":
    typer.run(main)
