import pytest
from safetensors.torch import save_file
from torch import nn

from reid.training.judging import Evaluation, Judge, tell_if_worse
from reid.training.state import Position


class Scripted:
    """A training whose evaluations give the figures that they are told to; its model is a number, its epoch."""

    def __init__(self, folder, held_out=(), test=(), frozen=None, patience=0):
        self.folder, self.saved, self.position = folder, [], Position()
        self.model = nn.BatchNorm1d(1)

        def score(values):
            found = iter(values)
            return lambda model: self._evaluation(next(found), model)

        self.judge = Judge(
            folder,
            self._save,
            test=score(test) if test else None,
            frozen=score([frozen]) if frozen is not None else None,
            validation=score(held_out) if held_out else None,
            patience=patience,
        )

    def _evaluation(self, score, model):
        return Evaluation({"mAP": score, "of": model.bias.item()}, score, f"mAP {100 * score:.1f}")

    def _save(self, model, epoch, name):
        self.saved.append((epoch, name.split(".")[0]))
        save_file(model.state_dict(), str(self.folder / name))

    def train(self, epochs):
        self.judge.begin(self.model, self.position)
        for epoch in range(1, epochs + 1):
            nn.init.constant_(self.model.bias, epoch)
            record = self.judge.judge(self.model, epoch, self.position, last=epoch == epochs)
            self.position.records.append(record)
            if self.judge.ended(self.position):
                break
        return self.position.records


@pytest.mark.parametrize(
    ("held_out", "patience", "stops", "kept"),
    [
        ([0.4, 0.5, 0.6, 0.7], 1, 3, 3),
        ([0.4, 0.5, 0.6, 0.6, 0.5, 0.9], 2, 4, 2),
        ([0.4, 0.5, 0.4, 0.6, 0.5, 0.5], 2, 5, 3),
        ([0.4, 0.5, 0.4, 0.3, 0.3], 0, 4, 1),
        ([0.4, 0.3, 0.4, 0.1], 2, 2, 0),
    ],
    ids=["better to the end", "stops", "a better one counts anew", "never stops", "nothing better"],
)
def test_it_stops_after_enough_that_are_no_better_and_keeps_the_best(tmp_path, held_out, patience, stops, kept, caplog):
    """The first figure is that of the weights it starts from."""
    caplog.set_level("INFO")
    run = Scripted(tmp_path, held_out, test=[0.8], frozen=0.7, patience=patience)
    records = run.train(len(held_out) - 1)
    assert len(records) == stops
    assert [record["held_out"]["score"] for record in records] == held_out[1 : stops + 1]
    assert caplog.text.count(f"(before training {100 * held_out[0]:.1f})") == stops
    assert records[-1]["kept"] == kept
    assert records[-1]["evaluation"]["of"] == kept, "what is tested is what is kept"
    assert (records[-1]["frozen"], records[-1]["score"]) == (0.7, 0.8)
    assert run.saved[-1] == (kept, "best" if kept == stops else "model")
    assert run.model.bias.item() == stops, "the training itself could go on"
    assert ("training made nothing better" in caplog.text) == (kept == 0)
    assert ("stopping: " in caplog.text) == (stops < len(held_out) - 1)


def test_without_identities_held_out_the_test_says_what_is_best(tmp_path, caplog):
    caplog.set_level("INFO")
    run = Scripted(tmp_path, test=[0.5, 0.6, 0.3], frozen=0.4)
    records = run.train(3)
    assert [record["evaluation"]["mAP"] for record in records] == [0.5, 0.6, 0.3]
    assert [record["frozen"] for record in records] == [0.4] * 3
    assert caplog.text.count("(before training 40.0)") == 3
    assert run.saved == [(1, "model"), (1, "best"), (2, "model"), (2, "best"), (3, "model")]


def test_with_nothing_to_score_on_a_model_is_written(tmp_path):
    run = Scripted(tmp_path)
    assert run.train(2) == [{}, {}]
    assert run.saved == [(1, "model"), (2, "model")]


def test_what_made_it_worse_is_said(caplog):
    tell_if_worse(Position(records=[{"score": 0.3}], best=0.6, frozen=0.5))
    assert (
        "training made it worse: 30.0 after it, 50.0 before; the best evaluation, 60.0, is kept as best" in caplog.text
    )
    caplog.clear()
    tell_if_worse(Position(records=[{"score": 0.3}], best=0.6, frozen=0.5, frozen_held_out=0.1))
    assert "training made it worse: 30.0 after it, 50.0 before; try" in caplog.text
    caplog.clear()
    for better in (Position(records=[{"score": 0.5}], frozen=0.5), Position(records=[{}]), Position()):
        tell_if_worse(better)
    assert caplog.text == ""
