"""The study of DCAL's forms: what is drawn, how gains are judged, and that nothing runs twice."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.layers import DropPath

from benchmarks import forms
from benchmarks.forms import FORMS, Network, build, interval, measure, partners_of, prepare, train
from reid.data.samples import Sample
from reid.models.cross_attention import pair_wise_attention, self_attention


def test_partners_are_those_of_the_form():
    labels = torch.arange(8).repeat_interleave(4)
    features = torch.randn(32, 5, generator=torch.Generator().manual_seed(1))
    itself = torch.arange(32)

    def drawn(name):
        return partners_of(FORMS[name], labels, features, torch.Generator().manual_seed(0))

    assert torch.equal(drawn("control"), itself)
    assert not (drawn("dcal") == itself).any()
    assert 4 <= (drawn("half") == itself).sum() <= 28
    near = features / features.norm(dim=1, keepdim=True)
    for image, partner in enumerate(drawn("hardest").tolist()):
        others = [other for other in range(32) if labels[other] != labels[image]]
        hardest = max(others, key=lambda other, image=image: float(near[image] @ near[other]))
        assert partner in (image, hardest)


@pytest.fixture
def network():
    return Network("vit_tiny", "none", 8, torch.device("cpu"))


def model_of(name, network, seed=0):
    torch.manual_seed(seed)
    model = build(replace(forms.SETS["eth80"], size=32), FORMS[name], 5, network).train()
    for module in model.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0
    return model


def test_partners_are_looked_at_in_the_layers_of_the_form_alone(network):
    tokens = torch.randn(4, 5, 192, generator=torch.Generator().manual_seed(1))
    partner = torch.tensor([1, 2, 3, 0])
    model = model_of("layers 11-12", network)
    own = other = tokens
    for i, layer in enumerate(model.layers, start=9):
        if i < 11:
            own, other = self_attention(layer, own)[0], self_attention(layer, other)[0]
        else:
            own, other = pair_wise_attention(layer, torch.cat([own, other]), partner)[0].chunk(2)
    found = model(tokens, partner)
    assert torch.allclose(found.pwca.token, model.backbone.norm(other)[:, 0], atol=1e-4)
    assert torch.allclose(found.sa.token, model.backbone.norm(own)[:, 0], atol=1e-4)
    everywhere = model_of("dcal", network)(tokens, partner)
    assert torch.allclose(everywhere.sa.token, found.sa.token, atol=1e-4)
    assert not torch.allclose(everywhere.pwca.token, found.pwca.token, atol=1e-3)
    with pytest.raises(ValueError, match=r"layers \(6, 9\), of which the first 8 are frozen"):
        model_of("layers 6-9", network)


def test_weights_of_the_losses_are_those_of_the_form(network):
    losses = {name: {"ce": torch.tensor(float(i), requires_grad=True)} for i, name in enumerate(("sa", "glca", "pwca"))}
    model = model_of("gradient", network)
    forms.total_loss(losses, model.log_variances).backward()
    assert losses["sa"]["ce"].grad == pytest.approx(1)  # as of a baseline
    assert not model_of("equal", network).log_variances.requires_grad
    chosen = forms.SETS["eth80"]
    for name, times in (("dcal", 1), ("fast weights", 10)):
        model = model_of(name, network)
        groups = forms.optimizer_of(model, chosen, FORMS[name]).param_groups
        rates = [group["base_lr"] for group in groups for p in group["params"] if p is model.log_variances]
        assert rates == [pytest.approx(times * chosen.rate)]
        assert sum(len(group["params"]) for group in groups) == sum(p.requires_grad for p in model.parameters())


def test_embeddings_are_of_the_tokens_of_the_form(network):
    tokens = torch.randn(4, 5, 192, generator=torch.Generator().manual_seed(1))
    model = model_of("dcal", network)
    model.heads["sa"].neck.running_mean += 1
    with torch.no_grad():
        output = model.eval()(tokens)
    unit = torch.nn.functional.normalize
    sa, glca = unit(output.sa.token), unit(output.glca.token)
    for name, expected in (
        ("dcal", torch.cat([sa, glca], dim=1)),
        ("sum", sa + glca),
        ("neck", torch.cat([unit(output.sa.features), unit(output.glca.features)], dim=1)),
    ):
        assert torch.allclose(forms.embed(output, "concat", FORMS[name]), unit(expected), atol=1e-6)


def test_what_a_form_changes_of_the_network(network):
    model = model_of("norm", network)
    assert model.glca.norm is model.backbone.norm
    assert model_of("dcal", network).glca.norm is not model.backbone.norm
    plain, renewed = model_of("baseline", network), model_of("renewed", network)
    same = [
        all(torch.equal(a, b) for a, b in zip(mine.parameters(), other.parameters(), strict=True))
        for mine, other in zip(plain.backbone.blocks, renewed.backbone.blocks, strict=True)
    ]
    assert same == [True, True, True, False]
    assert replace(network, stride=12).trained(64).pos_embed.shape[1] == 1 + 5 * 5


def test_larger_images_are_larger_in_all():
    larger = forms.enlarged(forms.SETS["cub30"], 1.25)
    assert (larger.size, larger.resize, larger.pad) == (80, 95, 0)
    assert forms.enlarged(forms.SETS["eth80"], 1.25).pad == 5
    assert forms.enlarged(forms.SETS["cub30"], 1.0) == forms.SETS["cub30"]


def test_forms_are_told_beside_each_other():
    """Gains over the baseline, in bold where the interval leaves 0 out; a form without runs of a set has none."""

    def row(values):
        return {"values": {"sa": values}}

    base, above, near = [0.1, 0.2, 0.3, 0.4], [0.3, 0.4, 0.5, 0.7], [0.1, 0.3, 0.2, 0.4]
    runs = {("baseline", 300): {0: row(base)}, ("glca", 300): {0: row(near)}, ("baseline", 600): {0: row(above)}}
    first = forms.Done(runs | {("tried", 300): {0: row(above)}}, np.arange(4))
    told = forms.summary({"birds": first, "others": forms.Done(runs, np.arange(4))}, 300).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in told if line.startswith("| ")][2:]
    assert [row[0] for row in cells] == ["baseline", "glca", "tried"]
    assert cells[0] == ["baseline", "25.00", "", "1", "25.00", "", "1"]
    assert cells[1][2].startswith("+0.00 [-") and "*" not in cells[1][2]
    assert cells[2][1] == "47.50" and cells[2][2].startswith("**+22.50 [+") and cells[2][4:] == ["", "", ""]


def test_the_interval_is_of_seeds_and_identities():
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(12), 5)
    base = random.random((5, 60))
    base[:, 7] = np.nan
    form = base + 0.1 + random.normal(0, 0.05, (5, 1)) + random.normal(0, 0.05, 12)[groups]
    mean, low, high = interval(base, form, groups)
    kept = np.arange(60) != 7
    assert mean == pytest.approx((form - base)[:, kept].mean())
    means = []
    for _ in range(2000):  # one draw at a time
        seeds, subjects = random.integers(0, 5, 5), random.integers(0, 12, 12)
        columns = np.concatenate([np.flatnonzero((groups == subject) & kept) for subject in subjects])
        means.append((form - base)[np.ix_(seeds, columns)].mean())
    assert (low, high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.006)
    assert interval(base, base, groups) == (0, 0, 0)


@pytest.mark.parametrize("photo_a_camera", [False, True])
def test_of_identities_held_out_each_is_looked_for_and_can_be_found(photo_a_camera):
    photos = [
        Sample(Path(f"{identity}-{photo}.jpg"), identity, photo if photo_a_camera else photo // 2)
        for identity in range(6)
        for photo in range(4)
    ]
    chosen = forms.Set("reid", lambda _: [photos, [], []], 8, 0.1)
    train, query, gallery = forms.held_out(chosen)(Path())
    assert {sample.identity for sample in train} == {0, 1, 3, 4} and len(train) == 16
    assert sorted(sample.identity for sample in query) == ([2, 5] if photo_a_camera else [2, 2, 5, 5])
    assert sorted([*query, *gallery], key=photos.index) == [sample for sample in photos if sample.identity in (2, 5)]
    for sample in query:  # in another camera, as it is counted
        assert any((one.identity, one.camera != sample.camera) == (sample.identity, True) for one in gallery)


@pytest.fixture
def objects(tmp_path):
    """A data root with a miniature of ETH-80: eight objects to train on and three others to find."""
    random = np.random.default_rng(0)
    (tmp_path / "eth80").mkdir()
    rows = [(identity, camera) for identity in range(11) for camera in range(4)]
    with (tmp_path / "eth80" / "images.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "split", "identity", "camera"))
        for identity, camera in rows:
            name = f"{identity}-{camera}.png"
            Image.fromarray(random.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(tmp_path / "eth80" / name)
            table.writerow((name, "train" if identity < 8 else "gallery" if camera else "query", identity, camera))
    return tmp_path


@pytest.mark.slow
def test_with_no_block_frozen_all_of_the_network_learns(objects, tmp_path):
    network = Network("vit_tiny", "none", 0, torch.device("cpu"))
    chosen = replace(forms.SETS["eth80"], size=32)
    torch.manual_seed(0)
    before = network.trained(32).patch_embed.proj.weight.detach().clone()
    inputs = prepare(chosen, objects, network, tmp_path / "stored.pt")
    assert inputs.train.shape == (forms.VIEWS, 32, 3, 32, 32)
    model, _ = train(chosen, FORMS["dcal"], inputs, network, steps=1, seed=0)
    assert not torch.equal(model.backbone.patch_embed.proj.weight, before)
    assert len(measure(chosen, FORMS["dcal"], model, inputs, network.device)["all"]) == 3


@pytest.mark.slow
def test_a_run_is_never_repeated(objects, tmp_path, monkeypatch, capsys):
    command = ["forms", "--data", objects, "--weights", "none", "--runs", tmp_path / "runs", "--results", tmp_path]
    command += ["eth80:baseline,dcal:2:0,1", "eth80:baseline:4:0,1"]
    monkeypatch.setattr(forms, "STEPS", 2)
    monkeypatch.setattr("sys.argv", [str(part) for part in command])
    forms.main()
    shown = capsys.readouterr().out
    of_all, of_set = shown.split("eth80, 64 px")
    short = [[cell.strip(" *") for cell in line.split("|")] for line in of_all.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.split("|")] for line in of_set.splitlines() if line.startswith("|")]
    assert [row[1] for row in short[2:]] == ["baseline", "dcal"]
    assert short[3][2:5] == [cells[3][4], cells[3][6], "2"] and short[2][3] == ""
    assert [row[1:4] for row in cells[2:]] == [
        ["baseline", "2", "sa"],
        ["dcal", "2", "all"],
        ["dcal", "2", "sa"],
        ["baseline", "4", "sa"],
    ]
    assert [bool(row[6]) for row in cells[2:]] == [False, True, True, False]
    assert not any(row[7] for row in cells[2:])  # no control
    assert [bool(row[8]) for row in cells[2:]] == [True, True, True, False]
    monkeypatch.setattr(forms, "train", None)
    forms.main()
    assert capsys.readouterr().out == shown
    assert (tmp_path / "runs.md").read_text() == shown
    file = tmp_path / "runs" / "eth80.jsonl"
    runs = [json.loads(line) for line in file.read_text().splitlines()]
    assert {run["precision"] for run in runs} == {forms.precision(torch.device("cpu"))}
    # Of another machine, and of a form that was taken out since:
    runs = [run | {"precision": "float32" if run["seed"] else "bfloat16"} for run in runs]
    runs += [run | {"form": "tried"} for run in runs if run["form"] == "dcal"]
    file.write_text("".join(f"{json.dumps(run)}\n" for run in runs))
    forms.main()
    of_set = capsys.readouterr().out.split("eth80, 64 px")[1]
    cells = [line.split("|") for line in of_set.splitlines() if line.startswith("| ")][2:]
    assert [row[1].strip() for row in cells] == ["baseline", "dcal", "dcal", "tried", "tried", "baseline"]
    assert all(re.fullmatch(r" \d+\.\d, \d+\.\d\* ", row[5]) for row in cells)
