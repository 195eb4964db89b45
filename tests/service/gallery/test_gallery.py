import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import numpy as np
import pytest
import torch
from PIL import Image

from reid.data.images import UnknownFormat, UnusableImage, decode, read_image
from reid.inference.embedder import Embedder
from service.engines.memory import MemoryEngine
from service.gallery.gallery import Gallery
from service.gallery.index import LocalIndex
from service.gallery.search import SearchOptions
from service.loading import Loaded, announce
from service.opening import open_gallery
from service.records import Cause, Conflict, Details, Enrolled, Filter, ModelMismatch, NotFound, Upload
from service.settings import Settings
from service.storage.database import Database
from service.storage.folder import GALLERY_FILE

EVERYTHING = Filter()


def upload(data, **said):
    return Upload("photo.png", data, Details(**said))


def opened(folder, embedder, model_id):
    database = Database(folder)
    return Gallery(database, embedder, model_id, LocalIndex(database, MemoryEngine(), model_id))


def enrolled(gallery, *uploads):
    results = gallery.enrol(uploads)
    assert all(result.created for result in results)
    return [result.item for result in results]


def found(answer):
    return [match.item.item_id for match in answer.matches]


def pictures_of(gallery, folder):
    return {path.stem for path in (folder / "gallery" / "pictures").rglob("*.webp")}


def test_an_enrolled_photo_finds_itself_first_and_scores_are_cosines(gallery, picture):
    photos = [picture(i) for i in range(40)]
    items = enrolled(gallery, *map(upload, photos))
    vectors = gallery.embedder.embed([decode(data) for data in photos])
    answer = gallery.query([photos[3]], SearchOptions(top_k=40))
    assert answer.candidates == 40
    cosines = vectors @ vectors[3]
    assert found(answer) == [items[i].item_id for i in np.argsort(-cosines, kind="stable")]
    np.testing.assert_allclose([match.score for match in answer.matches], -np.sort(-cosines), atol=1e-5)
    assert found(answer)[0] == items[3].item_id
    assert answer.best_score == answer.matches[0].score


def test_several_images_are_asked_as_the_mean_of_their_vectors(gallery, picture):
    photos = [picture(i) for i in range(6)]
    items = enrolled(gallery, *map(upload, photos))
    vectors = gallery.embedder.embed([decode(data) for data in photos])
    mean = vectors[:3].mean(axis=0)
    cosines = vectors @ (mean / np.linalg.norm(mean))
    answer = gallery.query(photos[:3], SearchOptions(top_k=6))
    assert found(answer) == [items[i].item_id for i in np.argsort(-cosines)]
    np.testing.assert_allclose([match.score for match in answer.matches], -np.sort(-cosines), atol=1e-5)


def test_an_item_is_asked_by_its_vector_and_is_no_match_of_its_own(gallery, picture):
    photos = [picture(i) for i in range(5)]
    items = enrolled(gallery, *map(upload, photos))
    by_image = gallery.query([photos[2]], SearchOptions(top_k=5))
    by_item = gallery.query_item(items[2].item_id, SearchOptions(top_k=4))
    assert found(by_item) == found(by_image)[1:]
    assert by_item.candidates == 5
    assert len(gallery.query_item(items[2].item_id, SearchOptions(top_k=2)).matches) == 2
    with pytest.raises(NotFound, match="'nobody'"):
        gallery.query_item("nobody", SearchOptions(top_k=1))


def test_a_minimum_score_leaves_out_the_rest_and_the_best_score_stays(gallery, picture):
    enrolled(gallery, *(upload(picture(i)) for i in range(5)))
    every = gallery.query([picture(9)], SearchOptions(top_k=5))
    least = every.matches[2].score
    some = gallery.query([picture(9)], SearchOptions(top_k=5, min_score=least))
    assert some.matches == every.matches[:3]
    none = gallery.query([picture(9)], SearchOptions(top_k=5, min_score=1.0))
    assert (none.matches, none.candidates, none.best_score) == ((), 5, every.matches[0].score)


def test_an_empty_gallery_answers(gallery, picture):
    answer = gallery.query([picture(0)], SearchOptions(top_k=3))
    assert (answer.matches, answer.candidates, answer.best_score) == ((), 0, None)


def test_each_file_has_its_own_result(gallery, picture, tmp_path):
    good, other = picture(1), picture(2)
    results = gallery.enrol(
        [
            upload(good, key="a"),
            upload(b"no image"),
            upload(good[: len(good) // 2]),
            upload(good),  # the first one again
            upload(other, key="a"),
            upload(other, key="b"),
        ]
    )
    created, unknown, cut, again, conflict, second = results
    assert created.created
    assert isinstance(unknown, UnknownFormat)
    assert isinstance(cut, UnusableImage)
    assert (again.item, again.created) == (created.item, False)
    assert isinstance(conflict, Conflict)
    assert second.created
    assert second.item.details.key == "b"
    assert pictures_of(gallery, tmp_path) == {sha256(good).hexdigest(), sha256(other).hexdigest()}


def test_a_photo_that_is_refused_leaves_no_picture_and_harms_none(gallery, picture, tmp_path):
    (item,) = enrolled(gallery, upload(picture(1), key="a"))
    (conflict,) = gallery.enrol([upload(picture(2), key="a")])
    assert isinstance(conflict, Conflict)
    assert pictures_of(gallery, tmp_path) == {item.medium.sha256}
    assert gallery.worker.size() == 1


def test_a_failure_of_the_store_leaves_nothing_behind(gallery, picture, tmp_path):
    with pytest.raises(ValueError, match="no time zone"):
        gallery.enrol([upload(picture(1)), upload(picture(2), captured_at=datetime(2024, 1, 1))])
    assert pictures_of(gallery, tmp_path) == set()
    assert gallery.worker.size() == 0
    enrolled(gallery, upload(picture(1)))


def test_a_known_photo_does_not_go_through_the_model_again(gallery, picture, monkeypatch):
    (item,) = enrolled(gallery, upload(picture(1)))
    monkeypatch.setattr(gallery.embedder, "embed_prepared", lambda images: pytest.fail("embedded again"))
    assert gallery.enrol([upload(picture(1), camera="elsewhere")]) == [Enrolled(item, created=False)]


def test_an_embedding_that_is_not_finite_fails_its_photo_alone(gallery, picture, monkeypatch, tmp_path):
    broken = gallery.embedder.prepare(decode(picture(2)))

    def embed(images):
        rows = Embedder.embed_prepared(gallery.embedder, images)
        for row, image in zip(rows, images, strict=True):
            row[0] = np.nan if torch.equal(image, broken) else row[0]
        return rows

    monkeypatch.setattr(gallery.embedder, "embed_prepared", embed)
    good, bad = gallery.enrol([upload(picture(1)), upload(picture(2))])
    assert good.created
    assert isinstance(bad, UnusableImage)
    assert pictures_of(gallery, tmp_path) == {good.item.medium.sha256}
    with pytest.raises(UnusableImage, match="not finite"):
        gallery.query([picture(2)], SearchOptions(top_k=1))


def test_edits_count_at_once_for_filters(gallery, picture):
    (item,) = enrolled(gallery, upload(picture(1), camera="north", label="ada"))
    may = datetime(2024, 5, 1, tzinfo=UTC)
    moved = gallery.edit(item.item_id, {"camera": "south", "label": None, "captured_at": may})
    assert gallery.store.get(item.item_id) == moved
    for chosen, count in [
        (Filter(cameras=frozenset({"north"})), 0),
        (Filter(cameras=frozenset({"south"})), 1),
        (Filter(labels=frozenset({"ada"})), 0),
        (Filter(since=may), 1),
    ]:
        assert gallery.query([picture(1)], SearchOptions(chosen, top_k=3)).candidates == count
        assert len(gallery.store.page(chosen, 0, 10)) == count


def test_no_match_fails_the_filter_by_an_edit_while_it_was_searched(gallery, picture, monkeypatch):
    moved, kept = enrolled(gallery, upload(picture(0), camera="north"), upload(picture(1), camera="north"))
    search = gallery.index.search

    def search_and_edit(*asked):
        answers = search(*asked)
        gallery.store.edit(moved.item_id, {"camera": "south"})  # an edit that the engine has not followed yet
        return answers

    monkeypatch.setattr(gallery.index, "search", search_and_edit)
    answer = gallery.query([picture(0)], SearchOptions(Filter(cameras=frozenset({"north"}))))
    assert (found(answer), answer.candidates) == ([kept.item_id], 1)


def test_what_is_deleted_is_gone(gallery, picture, tmp_path):
    first, second = enrolled(gallery, upload(picture(1)), upload(picture(2)))
    assert gallery.delete([first.item_id, "nobody"]) == [first]
    assert found(gallery.query([picture(1)], SearchOptions(top_k=3))) == [second.item_id]
    assert pictures_of(gallery, tmp_path) == {second.medium.sha256}
    assert gallery.delete([first.item_id]) == []
    with pytest.raises(NotFound):
        gallery.store.get(first.item_id)
    with pytest.raises(NotFound):
        gallery.pictures.read(first.medium.sha256)
    (again,) = enrolled(gallery, upload(picture(1)))
    assert again.item_id != first.item_id
    assert found(gallery.query([picture(1)], SearchOptions(top_k=1))) == [again.item_id]


def test_a_restart_keeps_everything_and_sweeps_what_a_kill_left(checkpoint, picture, tmp_path):
    folder = tmp_path / "gallery"
    with open_gallery(folder, checkpoint, "cpu") as gallery:
        first, second, third = enrolled(gallery, *(upload(picture(i), camera=f"c{i}") for i in range(3)))
        gallery.delete([second.item_id])
        before = gallery.query([picture(2)], SearchOptions(top_k=3))
        orphan = folder / "pictures" / "ab" / f"{'ab' * 32}.webp"
        orphan.parent.mkdir(exist_ok=True)
        orphan.write_bytes(b"")
    with open_gallery(folder, checkpoint, "cpu") as gallery:
        gallery.inspected.result()
        assert gallery.query([picture(2)], SearchOptions(top_k=3)) == before
        assert gallery.store.page(EVERYTHING, 0, 10) == [first, third]
        assert gallery.pictures.read(first.medium.sha256).startswith(b"\x89PNG")
        assert gallery.enrol([upload(picture(0))]) == [Enrolled(first, created=False)]
    assert not orphan.exists()
    assert len(list((folder / "pictures" / "orphans").glob(f"*/{orphan.name}"))) == 1


def test_an_older_database_that_is_put_back_costs_no_picture(checkpoint, picture, tmp_path, caplog):
    folder = tmp_path / "gallery"
    with open_gallery(folder, checkpoint, "cpu") as gallery:
        enrolled(gallery, *(upload(picture(i)) for i in range(5)))
    older = (folder / GALLERY_FILE).read_bytes()
    with open_gallery(folder, checkpoint, "cpu") as gallery:
        more = enrolled(gallery, *(upload(picture(i)) for i in range(5, 25)))
        gallery.delete([more[0].item_id])
    newer = (folder / GALLERY_FILE).read_bytes()
    kept = {item.medium.sha256: gallery.pictures.read(item.medium.sha256) for item in more[1:]}
    (folder / GALLERY_FILE).write_bytes(older)
    with caplog.at_level("WARNING"), open_gallery(folder, checkpoint, "cpu") as gallery:
        gallery.inspected.result()
        assert len(gallery.store.page(EVERYTHING, 0, 100)) == 5
    assert "19 pictures in" in caplog.text and "reid-gallery sweep" in caplog.text
    (folder / GALLERY_FILE).write_bytes(newer)
    with open_gallery(folder, checkpoint, "cpu") as gallery:
        gallery.inspected.result()
        assert {sha256: gallery.pictures.read(sha256) for sha256 in kept} == kept
    assert not list((folder / "pictures" / "orphans").glob("*/*"))


def test_what_is_on_its_way_in_is_not_set_aside_and_a_killed_processes_half_is_removed(gallery, picture):
    [one] = enrolled(gallery, upload(picture(0)))
    holdings, now = gallery.holdings, datetime.now(UTC)
    gallery.inspected.result()
    with holdings.saved({"c" * 64: b"on its way"}):
        half = gallery.pictures.path("d" * 64).with_name(f".{'d' * 64}.webp.{'0' * 32}.tmp")
        half.parent.mkdir(exist_ok=True)
        half.write_bytes(b"of another process")
        holdings.sweep(now - timedelta(hours=1))
        assert gallery.pictures.holds("c" * 64) and half.exists()
        holdings.sweep(now + timedelta(hours=1))
        assert not half.exists() and not gallery.pictures.holds("c" * 64)
    assert gallery.pictures.holds(one.medium.sha256)


def test_a_damaged_database_is_read_and_nothing_is_changed_or_swept(checkpoint, picture, tmp_path, caplog):
    folder = tmp_path / "gallery"
    with open_gallery(folder, checkpoint, "cpu") as gallery:
        first, *_ = enrolled(gallery, *(upload(picture(i), camera=f"c{i}") for i in range(3)))
    with closing(sqlite3.connect(folder / GALLERY_FILE)) as connection:
        ((page,),) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'items_by_identity'")
        connection.execute("PRAGMA journal_mode = DELETE")
    data = bytearray((folder / GALLERY_FILE).read_bytes())
    data[(page - 1) * 4096 : page * 4096] = b"\xff" * 4096
    (folder / GALLERY_FILE).write_bytes(data)
    orphan = folder / "pictures" / "ab" / f"{'ab' * 32}.webp"
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"")
    with open_gallery(folder, checkpoint, "cpu") as gallery:
        gallery.inspected.result()
        assert gallery.store.page(EVERYTHING, 0, 1) == [first]
        with caplog.at_level("INFO"):
            announce(Loaded(None, gallery, None), Settings(checkpoint=checkpoint, gallery=folder), "here")
        for change in (lambda: gallery.enrol([upload(picture(9))]), lambda: gallery.delete([first.item_id])):
            with pytest.raises(
                OSError, match="damaged .*nothing is changed; put back a backup, with reid-gallery rest"
            ):
                change()
    assert "put back a backup" in caplog.text
    assert f"3 items of model {gallery.model_id}" in caplog.text  # which `reid-serve` says, and goes on
    assert orphan.exists() and not (folder / "pictures" / "orphans").exists()


@pytest.mark.parametrize("harm", ["lost", "flipped", "cut", "of another version"])
def test_a_copy_that_is_lost_or_damaged_is_put_back_by_enrolling_again(gallery, picture, harm):
    [one] = gallery.enrol([Upload("0.png", picture(0), Details(key="k"))])
    medium = one.item.medium
    path, kept = gallery.pictures.path(medium.sha256), gallery.pictures.read(medium.sha256)
    assert medium.copy_sha256 == sha256(kept).hexdigest()
    if harm == "lost":
        path.unlink()
    elif harm == "flipped":
        path.write_bytes(kept[:-20] + bytes([kept[-20] ^ 1]) + kept[-19:])
    elif harm == "cut":
        path.write_bytes(kept[: len(kept) // 2])
    else:  # lost, and written by another encoder before
        path.unlink()
        gallery.store.keep_checksums({medium.sha256: "0" * 64})
    with pytest.raises(NotFound, match="enrolling the photo again"):
        gallery.picture(gallery.store.get(one.item.item_id))
    [again] = gallery.enrol([Upload("0.png", picture(0), Details(key="k"))])
    assert (again.item.item_id, again.created) == (one.item.item_id, False)
    assert gallery.store.get(one.item.item_id) == one.item
    assert gallery.pictures.read(medium.sha256, medium.copy_sha256) == kept
    assert gallery.picture(one.item)


def test_a_new_box_of_a_photo_puts_back_its_copy(gallery, picture):
    [one] = gallery.enrol([Upload("0.png", picture(0), Details())])
    gallery.pictures.path(one.item.medium.sha256).write_bytes(b"RIFF")
    [box] = gallery.enrol([Upload("0.png", picture(0), Details(), box=(0, 0, 5, 5))])
    assert box.created and box.item.medium == one.item.medium
    assert decode(gallery.picture(box.item)).size == (5, 5)


def test_what_a_kill_left_of_another_encoder_is_not_taken_for_the_copy(gallery, picture):
    photo = sha256(picture(0)).hexdigest()
    gallery.pictures.save({photo: b"another encoder's"})
    [one] = gallery.enrol([Upload("0.png", picture(0), Details())])
    assert gallery.picture(one.item)


def test_a_gallery_keeps_to_its_model(checkpoint, picture, tmp_path):
    """Another model may look at the items and change them, but neither ask nor enrol."""
    embedder, _ = Embedder.from_checkpoint(checkpoint)
    with opened(tmp_path / "gallery", embedder, "one") as gallery:
        first, second = enrolled(gallery, upload(picture(1)), upload(picture(2)))
        before = gallery.query([picture(2)], SearchOptions())
    with opened(tmp_path / "gallery", embedder, "other") as gallery:
        assert not gallery.worker.serves
        for action in (
            lambda: gallery.query([picture(1)], SearchOptions()),
            lambda: gallery.query_item(first.item_id, SearchOptions()),
            lambda: gallery.enrol([upload(picture(3))]),
        ):
            with pytest.raises(ModelMismatch, match="belongs to model one, but model other is loaded"):
                action()
        moved = gallery.edit(second.item_id, {"camera": "north"})
        assert gallery.delete([first.item_id]) == [first]
        assert gallery.store.page(EVERYTHING) == [moved]
    with opened(tmp_path / "gallery", embedder, "one") as gallery:
        (match,) = gallery.query([picture(2)], SearchOptions()).matches
        assert (match.item, match.score) == (moved, before.matches[0].score)


def test_one_item_stands_for_each_label(gallery, picture, monkeypatch):
    labels = ["ada", "bob", None, "ada", "eve", None, "bob", "ada"]
    photos = [picture(i) for i in range(40)]
    enrolled(gallery, *(upload(data, label=labels[i % 8]) for i, data in enumerate(photos)))
    every = gallery.query([picture(50)], SearchOptions(top_k=40)).matches
    best, seen = [], set()
    for match in every:
        if match.item.details.label is None or match.item.details.label not in seen:
            best.append(match)
            seen.add(match.item.details.label)
    for count in (1, 2, 5, 13, 40):
        answer = gallery.query([picture(50)], SearchOptions(top_k=count, by_label=True))
        assert list(answer.matches) == best[:count]
        assert answer.candidates == 40
    least = best[4].score
    assert (
        list(gallery.query([picture(50)], SearchOptions(top_k=13, by_label=True, min_score=least)).matches) == best[:5]
    )
    monkeypatch.setattr(gallery.worker, "search", lambda *_: pytest.fail("asked for more than there can be"))
    assert list(gallery.query([picture(50)], SearchOptions(top_k=14, by_label=True)).matches) == best
    monkeypatch.undo()
    of_item = gallery.query_item(best[0].item.item_id, SearchOptions(top_k=40, by_label=True))
    assert best[0].item not in [match.item for match in of_item.matches]


def test_queries_are_in_the_log_when_they_are_answered(gallery, picture):
    first, second = enrolled(gallery, upload(picture(1)), upload(picture(2)))
    cause = Cause("key-1", "request-1")
    answer = gallery.query([picture(1), picture(3)], SearchOptions(top_k=1, conditions={"top_k": 1}), cause)
    gallery.query_item(second.item_id, SearchOptions())
    by_image, by_item = gallery.queries.page()
    assert by_image.asked.cause == cause
    assert by_image.asked.images == (sha256(picture(1)).hexdigest(), sha256(picture(3)).hexdigest())
    assert (by_image.asked.conditions, by_image.asked.candidates) == ({"top_k": 1}, 2)
    assert by_image.asked.matches == ((first.item_id, answer.matches[0].score),)
    assert (by_item.asked.images, by_item.asked.item_id) == ((), second.item_id)


def test_attention_is_drawn_over_a_photo_of_bounded_size(gallery, picture):
    small, large = gallery.attention(picture(1)), gallery.attention(picture(1, 3000, 1500))
    assert (small.size, large.size) == ((20, 30), (1024, 512))
    assert np.asarray(small).std() > 0
    with pytest.raises(UnknownFormat):
        gallery.attention(b"text")


def test_many_threads_that_enrol_and_delete_the_same_photos_leave_one_truth(gallery, picture, tmp_path):
    photos = [picture(i) for i in range(4)]

    def work(turn):
        (result,) = gallery.enrol([upload(photos[turn % 4])])
        if turn % 3 == 0:
            gallery.delete([result.item.item_id])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(60)))
    items = gallery.store.page(EVERYTHING, 0, 10)
    assert {item.medium.sha256 for item in items} == pictures_of(gallery, tmp_path)
    assert sorted(found(gallery.query([photos[0]], SearchOptions(top_k=10)))) == sorted(item.item_id for item in items)


def test_what_is_decoded_smaller_is_the_same_everywhere(checkpoint, tmp_path):
    """From a file, a gallery's query, its items and their copies; a box in a photo is cut from all its pixels."""
    trained, described = Embedder.from_checkpoint(checkpoint)
    preprocessing = replace(described.preprocessing, profiles=True, enough=(128, 64))
    embedder = Embedder(trained.model, preprocessing, features=trained.features)
    box = (300, 100, 200, 300)
    photos = {}
    for seed in range(3):
        rough = np.random.default_rng(seed).integers(0, 256, (45, 60, 3), dtype=np.uint8)
        path = tmp_path / f"{seed}.jpg"
        Image.fromarray(rough).resize((601, 451), Image.Resampling.BICUBIC).save(path, quality=95)
        photos[path] = path.read_bytes()
    whole = embedder.embed(list(photos))
    cropped = embedder.embed([read_image(path, box) for path in photos])
    assert (np.abs(whole - trained.embed(list(photos))).max(axis=1) > 1e-5).all()  # or nothing would be shown here
    with opened(tmp_path / "gallery", embedder, "one") as gallery:
        for rows, place in ((whole, None), (cropped, box)):
            uploads = [Upload(path.name, data, Details(), box=place) for path, data in photos.items()]
            items = enrolled(gallery, *uploads)
            for row, item, data in zip(rows, items, photos.values(), strict=True):
                assert (item.medium.width, item.medium.height) == (601, 451)
                (match,) = gallery.query([data], SearchOptions(top_k=1), boxes=[place]).matches
                assert match.item == item and match.score == pytest.approx(1, abs=1e-6)
                shown = embedder.embed(gallery.views([item], "test"))[0]
                np.testing.assert_allclose(shown, row, atol=1e-6)
