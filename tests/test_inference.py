"""Predicting with the best model, and taking it elsewhere in files that hold no pickle."""

import json

import numpy as np
import pytest
from PIL import Image

import tunekit
from tunekit.cli import main


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    config = {"backbone": "cnn_small", "precision": "float32"}  # as ONNX computes
    return tunekit.train(config, "digits", max_epochs=4, folder=folder, verbose=0, name="digits")


@pytest.fixture(scope="module")
def test_split():
    return tunekit.load_dataset("digits").test


def test_predictions_are_those_of_the_test(trained, test_split):
    frame = trained.predict(test_split.images)
    assert list(frame.columns) == ["class", "probability", *(f"p/{digit}" for digit in range(10))]
    assert (frame["class"].astype(int) == test_split.targets).mean() == pytest.approx(trained.test()["test_accuracy"])
    assert np.allclose(frame.filter(like="p/").sum(axis=1), 1)


def test_files_are_prepared_as_in_training(trained, test_split, tmp_path):
    for number, image in enumerate(test_split.images[:20]):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{number:02d}.png")
    (tmp_path / "notes.txt").write_text("no image")
    from_files = trained.predict(tmp_path)
    from_arrays = trained.predict(test_split.images[:20])
    assert from_files["path"].tolist() == [str(tmp_path / f"{number:02d}.png") for number in range(20)]
    assert from_files.drop(columns="path").equals(from_arrays)
    assert trained.predict([str(tmp_path / "03.png")])["class"].item() == from_arrays["class"][3]


def test_colour_files_for_a_model_of_grey_images(trained, test_split, tmp_path):
    Image.fromarray(test_split.images[0][..., 0]).convert("RGB").save(tmp_path / "0.png")
    colour = np.asarray(Image.open(tmp_path / "0.png")).copy()
    colour[0, 0] = (255, 0, 0)
    Image.fromarray(colour).save(tmp_path / "0.png")
    assert len(trained.predict(tmp_path)) == 1


def test_what_cannot_be_predicted_is_said(trained, tmp_path):
    with pytest.raises(tunekit.DataError, match=r"must be uint8 \(N, 8, 8, 1\)"):
        trained.predict(np.zeros((2, 9, 9), np.uint8))
    with pytest.raises(tunekit.DataError, match="no images in"):
        trained.predict(tmp_path)
    (tmp_path / "bad.jpg").write_text("text")
    with pytest.raises(tunekit.DataError, match=r"1 of 1 images cannot be read: .*bad.jpg"):
        trained.predict(tmp_path)


def test_an_exported_model_opens_elsewhere_and_predicts_the_same(trained, test_split, tmp_path):
    written = trained.export(tmp_path / "model")
    assert [path.name for path in written][:2] == ["model.safetensors", "model.json"]
    for path in (tmp_path / "model", tmp_path / "model.json"):
        assert tunekit.load_model(path).predict(test_split.images).equals(trained.predict(test_split.images))


def test_a_damaged_or_foreign_model_is_refused(trained, tmp_path):
    weights, described, *_ = trained.export(tmp_path / "model")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(tunekit.CheckpointError, match="altered or damaged"):
        tunekit.load_model(tmp_path / "model")
    described.write_text(json.dumps({"format": "another"}))
    with pytest.raises(tunekit.CheckpointError, match="no model of tunekit"):
        tunekit.load_model(tmp_path / "model")
    with pytest.raises(tunekit.CheckpointError, match="no whole model"):
        tunekit.load_model(tmp_path / "nothing")


def test_the_onnx_model_gives_the_same_from_pixels(trained, test_split, tmp_path):
    pytest.importorskip("onnxscript")
    reference = pytest.importorskip("onnx.reference")
    written = trained.export(tmp_path / "model")
    assert sorted(written) == sorted(tmp_path.glob("model*"))  # none beside those that are named
    path = written[2]
    pixels = test_split.images[:5].transpose(0, 3, 1, 2).astype(np.float32)
    (outputs,) = reference.ReferenceEvaluator(str(path)).run(None, {"pixels": pixels})
    shares = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
    assert np.allclose(shares, trained.predict(test_split.images[:5]).filter(like="p/"), atol=1e-5)


def test_on_the_command_line(trained, test_split, tmp_path, capsys):
    for number, image in enumerate(test_split.images[:3]):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{number}.png")
    main(["predict", str(trained.folder), str(tmp_path), "--out", str(tmp_path / "predictions.csv")])
    assert (tmp_path / "predictions.csv").read_text().startswith("path,class,probability,p/0")
    main(["export", str(trained.folder), str(tmp_path / "model")])
    assert "3 predictions written" in capsys.readouterr().out
    assert (tmp_path / "model.safetensors").exists()
