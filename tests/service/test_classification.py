import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import current_thread

import numpy as np
import pytest
import torch
from PIL import Image

from reid.config import FgvcConfig, override
from reid.data.images import UnknownFormat, UnusableImage
from reid.inference.checkpoint import load_model, save_model
from reid.inference.classifier import Classifier
from service import classification as classification_module
from service.classification import Classification
from service.gallery.batcher import Closed
from service.opening import load_classifier


def expected(run, data):
    """The probabilities as the design has them: softmax of each branch, halved and summed, of the picture's middle."""
    model, _ = load_model(run, FgvcConfig)
    image = Image.open(io.BytesIO(data)).resize((20, 40), Image.Resampling.BICUBIC).crop((2, 4, 18, 36))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        output = model((pixels - 0.5) / 0.5)
    return ((output.sa.logits.softmax(1) + output.glca.logits.softmax(1)) / 2)[0].numpy()


def test_each_photo_gets_the_probabilities_of_the_model(classification, classifier, picture):
    photos = [picture(number) for number in range(5)]
    found = np.stack(classification.classify(photos))
    np.testing.assert_allclose(found, np.stack([expected(classifier, data) for data in photos]), atol=1e-5)
    np.testing.assert_allclose(
        found,
        Classifier.from_checkpoint(classifier)[0].classify([Image.open(io.BytesIO(data)) for data in photos]),
        atol=1e-6,
    )
    assert len(np.unique(found.argmax(axis=1))) > 1  # or the order would not matter
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_a_photo_that_cannot_be_used_fails_alone(classification, picture):
    good = picture(1)
    first, text, cut, last = classification.classify([good, b"text", good[: len(good) // 2], picture(2)])
    assert isinstance(text, UnknownFormat)
    assert isinstance(cut, UnusableImage)
    np.testing.assert_allclose([first, last], classification.classify([good, picture(2)]), atol=1e-6)


def test_probabilities_that_are_not_finite_fail_their_photo_alone(classification, picture, monkeypatch):
    def classify(images):
        rows = Classifier.classify_prepared(classification.classifier, images)
        rows[images.flatten(1).mean(1).numpy() > 0.9] = np.nan
        return rows

    written = io.BytesIO()
    Image.new("RGB", (20, 30), "white").save(written, "PNG")
    monkeypatch.setattr(classification.classifier, "classify_prepared", classify)
    good, bad = classification.classify([picture(1), written.getvalue()])
    assert good.shape == (6,)
    assert isinstance(bad, UnusableImage)


def test_photos_of_many_requests_share_batches_and_each_gets_its_own_answer(classification, picture):
    photos = [picture(number) for number in range(40)]
    alone = [classification.classify([data])[0] for data in photos]
    before = batches(classification)
    requests = [photos[start : start + 5] for start in range(0, 40, 5)] * 4
    with ThreadPoolExecutor(len(requests)) as pool:
        answers = list(pool.map(classification.classify, requests))
    for answer, start in zip(answers, list(range(0, 40, 5)) * 4, strict=True):
        np.testing.assert_allclose(answer, alone[start : start + 5], atol=1e-5)
    assert batches(classification) - before < 160


def batches(classification):
    return classification.metrics.registry.get_sample_value("reid_classify_batch_size_count")


def test_a_request_may_bring_more_photos_than_are_held_at_once(classifier, picture, monkeypatch):
    monkeypatch.setattr(classification_module, "AT_ONCE", 2)
    with Classification(*load_classifier(classifier, "cpu")) as classification:
        photos = [b"text", *(picture(number) for number in range(6)), b"", b"text"]
        with ThreadPoolExecutor(4) as pool:
            for answer in pool.map(classification.classify, [photos] * 8):
                assert [isinstance(one, UnknownFormat) for one in answer] == [True, *[False] * 6, True, True]


def owner_of(work, gallery, monkeypatch):
    """The thread on which a method of the classifier runs, and that of the gallery."""
    threads = []
    ask = work.classifier.forward
    monkeypatch.setattr(
        work.classifier, "forward", lambda *given, **more: threads.append(current_thread()) or ask(*given, **more)
    )
    return threads, gallery.worker.run(current_thread).result()


def test_two_models_of_a_service_run_on_one_thread(gallery, classifier, picture, monkeypatch):
    with Classification(*load_classifier(classifier, "cpu"), gallery) as classification:
        threads, owner = owner_of(classification, gallery, monkeypatch)
        assert classification.classify([picture(1)])[0].shape == (6,)
        classification.attention(picture(1))
        classification.check()
        assert threads == [owner, owner]
        assert classification.metrics is gallery.metrics
    assert gallery.worker.size() == 0  # it goes on without the classifier


def test_attention_is_drawn_over_the_photo(classification, picture):
    assert classification.attention(picture(1)).size == (20, 30)
    assert classification.attention(picture(1, 3000, 1500)).size == (1024, 512)
    with pytest.raises(UnknownFormat):
        classification.attention(b"text")


def test_a_failure_of_the_model_is_raised_and_the_next_photo_is_answered(classification, picture, monkeypatch):
    def fail(images):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(classification.classifier, "classify_prepared", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            classification.classify([picture(1), picture(2)])
    assert classification.classify([picture(1)])[0].shape == (6,)


def test_nothing_is_taken_once_it_is_closed(gallery, classifier, picture):
    classification = Classification(*load_classifier(classifier, "cpu"), gallery)
    classification.close()
    with pytest.raises(Closed):
        classification.classify([picture(1)])


def test_the_id_is_of_the_model_and_what_is_made_of_it(classifier, tmp_path):
    _, model_id = load_classifier(classifier, "cpu")
    assert load_classifier(classifier / "model.safetensors", "cpu")[1] == model_id
    model, described = load_model(classifier, FgvcConfig)
    config = override(described.config, {"prediction": "sa"})
    save_model(tmp_path / "model.safetensors", model, replace(described, config=config))
    other, other_id = load_classifier(tmp_path, "cpu")
    assert (other.prediction, other_id != model_id) == ("sa", True)


def test_a_model_of_another_kind_is_refused(checkpoint):
    with pytest.raises(ValueError, match=r"is a re-identification model .*, expected a classifier"):
        load_classifier(checkpoint, "cpu")
