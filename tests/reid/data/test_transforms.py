import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2 as T

from reid.data.preprocessing import Decoding, Preprocessing
from reid.data.transforms import ToTensor, evaluation_transform, training_transform

PREPROCESSING = Preprocessing((24, 16), (0.5, 0.4, 0.3), (0.5, 0.25, 0.2))


def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))


def test_evaluation_is_a_bicubic_resize_and_normalisation():
    resized = np.array(picture().resize((16, 24), Image.Resampling.BICUBIC), dtype=np.float64) / 255
    expected = (resized - PREPROCESSING.mean) / PREPROCESSING.std
    got = evaluation_transform(PREPROCESSING)(picture())
    assert got.shape == (3, 24, 16)
    assert got.dtype == torch.float32
    assert type(got) is torch.Tensor
    np.testing.assert_allclose(got.permute(1, 2, 0).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("mean", [(0.5, 0.5, 0.5), (0.485, 0.456, 0.406)])
def test_values_are_torchvisions_to_the_bit(mean):
    own, shape = Preprocessing((40, 30), mean, (0.229, 0.224, 0.225)), picture()
    theirs = [T.ToImage(), T.ToDtype(torch.float32, scale=True), T.Normalize(list(own.mean), list(own.std))]
    assert torch.equal(pickle.loads(pickle.dumps(ToTensor(own)))(shape), T.Compose(theirs)(shape))


def test_training_without_augmentation_is_evaluation():
    plain = training_transform(PREPROCESSING, flip=0, pad=0, erasing=0)(picture())
    torch.testing.assert_close(plain, evaluation_transform(PREPROCESSING)(picture()))


def test_flip_mirrors():
    flipped = training_transform(PREPROCESSING, flip=1.0, pad=0, erasing=0)(picture())
    torch.testing.assert_close(flipped, evaluation_transform(PREPROCESSING)(picture()).flip(2))


def test_crop_moves_the_picture_on_black():
    torch.manual_seed(0)
    white = Image.new("RGB", (16, 24), (255, 255, 255))
    moved = training_transform(PREPROCESSING, flip=0, pad=5, erasing=0)(white)
    black = torch.tensor([-m / s for m, s in zip(PREPROCESSING.mean, PREPROCESSING.std, strict=True)])
    dark = (moved - black[:, None, None]).abs().amax(0) < 1e-5
    assert moved.shape == (3, 24, 16)
    assert 0 < dark.float().mean() < 1 - (11 / 16) * (19 / 24)


def test_erasing_fills_one_rectangle_with_noise():
    torch.manual_seed(0)
    plain = evaluation_transform(PREPROCESSING)(picture())
    erased = training_transform(PREPROCESSING, flip=0, pad=0, erasing=1.0)(picture())
    rows, columns = torch.where((erased != plain).any(0))
    height, width = rows.max() - rows.min() + 1, columns.max() - columns.min() + 1
    assert len(rows) == height * width
    assert 0.01 < len(rows) / (24 * 16) < 0.4
    assert len(erased[0, rows, columns].unique()) > 2


def test_json_round_trip():
    assert Preprocessing.from_json(PREPROCESSING.as_json()) == PREPROCESSING


RESIZED = Preprocessing((24, 16), (0.5, 0.4, 0.3), (0.5, 0.25, 0.2), resize=(30, 26))


def test_of_a_resized_picture_the_centre_is_evaluated():
    whole = np.array(picture().resize((26, 30), Image.Resampling.BICUBIC), dtype=np.float64) / 255
    expected = (whole[3:27, 5:21] - RESIZED.mean) / RESIZED.std
    got = evaluation_transform(RESIZED)(picture())
    np.testing.assert_allclose(got.permute(1, 2, 0).numpy(), expected, atol=1e-5)
    assert RESIZED.seen == (5 / 26, 3 / 30, 16 / 26, 24 / 30)
    assert PREPROCESSING.seen == (0, 0, 1, 1)


def test_of_a_resized_picture_any_part_is_trained_on():
    torch.manual_seed(0)
    whole = np.array(picture().resize((26, 30), Image.Resampling.BICUBIC), dtype=np.float64) / 255
    whole = torch.from_numpy((whole - RESIZED.mean) / RESIZED.std).permute(2, 0, 1).float()
    parts = {(top, left): whole[:, top : top + 24, left : left + 16] for top in range(7) for left in range(11)}
    found = set()
    for _ in range(300):
        crop = training_transform(RESIZED, flip=0)(picture())
        found |= {place for place, part in parts.items() if (part - crop).abs().max() < 1e-4}
    assert {top for top, _ in found} == set(range(7))
    assert {left for _, left in found} == set(range(11))


def test_json_of_a_resized_picture_and_of_one_that_is_not():
    assert Preprocessing.from_json(RESIZED.as_json()) == RESIZED
    assert "resize" not in PREPROCESSING.as_json(), "the names of models made before are a hash of this"


def test_models_of_old_say_nothing_of_profiles_and_go_without():
    of_old = {"image_size": [32, 16], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    assert Preprocessing.from_json(of_old).profiles is False
    assert list(Preprocessing.from_json(of_old).as_json()) == list(of_old)
    assert Preprocessing.from_json(of_old).decoding == Decoding(profiles=False)
    applied = Preprocessing.from_json({**of_old, "profiles": True})
    assert applied.decoding == Decoding() and Preprocessing.from_json(applied.as_json()) == applied


def test_how_pictures_are_decoded_is_stored():
    stored = Preprocessing((8, 4), (0.5,) * 3, (0.5,) * 3, profiles=True, enough=(32, 16))
    assert Preprocessing.from_json(json.loads(json.dumps(stored.as_json()))) == stored
    assert stored.decoding == Decoding(True, (32, 16)) and stored.decoding.in_full == Decoding(True)
