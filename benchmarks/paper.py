"""The tables of the paper as rows: what is trained, and the figures that were published.

Zhu, Ke, Li, Liu, Tian, Shan: Dual Cross-Attention Learning for Fine-Grained Visual Categorization and Object
Re-Identification, CVPR 2022, arXiv 2205.02151. The paper publishes no code or weights; its tables were read in public
transcriptions:

- Tables 1 and 2: github.com/mossbee/final_dcal, dual_cross_attention_learning.md at 8592301. The gain of DCAL in each
  cell of accuracy or mAP is that of github.com/mossbee/DCAL_Adapt, dual_cross_attention_learning.md at a87e186.
- Table 4: the same file of DCAL_Adapt.
- The text, with its own figures: the LaTeX body in github.com/mossbee/twin_dcal_new_new, research.md at c305cab. It
  confirms the figures of DCAL on R50-ViT-Base (CUB, Cars, Aircraft) and ViT-Base (mAP), and several gains.

Table 3, the ablation, was seen in none of them: of its cells those are here that the text or another table repeats, and
the others are None. The paper's other choices of GLCA's queries and of PWCA's partners are no options here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from reid.config import Config, load_config
from reid.inference.checkpoint import KINDS
from reid.names import Method, Task

Table = Literal["1", "2", "more"]
TITLES: Mapping[Table, str] = {
    "1": "Table 1: fine-grained categories, top-1 accuracy",
    "2": "Table 2: re-identification, mAP and Rank-1",
    "more": "Tables 3 and 4 (ablation), the text's SA alone, and the appendix's further backbones",
}
DATASETS: Mapping[str, Task] = {
    "cub": "fgvc",
    "cars": "fgvc",
    "aircraft": "fgvc",
    "veri776": "reid",
    "msmt17": "reid",
    "market1501": "reid",
    "dukemtmc": "reid",
}
FIGURES: Mapping[Task, Mapping[str, str]] = {"fgvc": {"top1": "top-1"}, "reid": {"mAP": "mAP", "rank1": "Rank-1"}}

# (baseline, DCAL), each top-1 accuracy.
TABLE_1: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "deit_tiny": {"cub": (82.1, 84.6), "cars": (87.2, 89.4), "aircraft": (84.7, 87.4)},
    "deit_small": {"cub": (85.8, 87.6), "cars": (90.7, 92.3), "aircraft": (88.1, 90.0)},
    "deit_base": {"cub": (88.0, 88.8), "cars": (92.9, 93.8), "aircraft": (90.3, 92.6)},
    "vit_base": {"cub": (90.8, 91.4), "cars": (92.5, 93.4), "aircraft": (90.0, 91.5)},
    "r50_vit_base": {"cub": (91.3, 92.0), "cars": (94.0, 95.3), "aircraft": (92.4, 93.3)},
}
# (baseline, DCAL), each (mAP, Rank-1).
Pair = tuple[float, float]
TABLE_2: Mapping[str, Mapping[str, tuple[Pair, Pair]]] = {
    "deit_tiny": {
        "veri776": ((71.3, 94.3), (74.1, 94.7)),
        "msmt17": ((42.1, 63.9), (44.9, 68.2)),
        "market1501": ((77.9, 90.3), (79.8, 91.8)),
        "dukemtmc": ((69.5, 82.9), (71.7, 84.9)),
    },
    "deit_small": {
        "veri776": ((76.7, 95.5), (78.1, 95.9)),
        "msmt17": ((53.3, 75.0), (55.1, 77.3)),
        "market1501": ((84.3, 93.7), (85.3, 94.0)),
        "dukemtmc": ((75.7, 87.6), (77.4, 87.9)),
    },
    "deit_base": {
        "veri776": ((78.3, 95.9), (80.0, 96.5)),
        "msmt17": ((60.5, 81.6), (62.3, 83.1)),
        "market1501": ((86.6, 94.4), (87.2, 94.5)),
        "dukemtmc": ((79.1, 88.7), (80.2, 89.6)),
    },
    "vit_base": {
        "veri776": ((78.1, 96.0), (80.2, 96.9)),
        "msmt17": ((61.6, 81.4), (64.0, 83.1)),
        "market1501": ((87.1, 94.3), (87.5, 94.7)),
        "dukemtmc": ((78.9, 89.4), (80.1, 89.0)),
    },
}
# (dataset, backbone, method, branch at test), the published figures in the order of FIGURES, and where.
MORE: tuple[tuple[str, str, Method, Literal["both", "sa"], tuple[float | None, ...], str], ...] = (
    ("cub", "deit_tiny", "baseline", "both", (82.1,), "Tables 1, 4"),
    ("cub", "deit_tiny", "glca", "both", (83.1,), "text, ablation"),
    ("cub", "deit_tiny", "pwca", "both", (83.1,), "Table 4"),
    ("cub", "deit_tiny", "dcal", "both", (84.6,), "Table 1"),
    ("cub", "deit_tiny", "dcal", "sa", (84.3,), "text, limitations"),
    ("cub", "cait_xs24", "baseline", "both", (88.5,), "appendix"),
    ("cub", "cait_xs24", "dcal", "both", (89.7,), "appendix"),
    ("cub", "swin_tiny", "baseline", "both", (84.9,), "appendix"),
    ("cub", "swin_tiny", "pwca", "both", (85.8,), "appendix"),
    ("veri776", "vit_base", "baseline", "both", (78.1, 96.0), "Table 2"),
    ("veri776", "vit_base", "glca", "both", (None, None), "Table 3"),
    ("veri776", "vit_base", "pwca", "both", (None, None), "Table 3"),
    ("veri776", "vit_base", "dcal", "both", (80.2, 96.9), "Table 2"),
    ("veri776", "vit_base", "dcal", "sa", (80.1, None), "text, limitations"),
    ("msmt17", "vit_base", "baseline", "both", (61.6, 81.4), "Tables 2, 4"),
    ("msmt17", "vit_base", "pwca", "both", (62.8, None), "Table 4"),
    ("msmt17", "vit_base", "dcal", "both", (64.0, 83.1), "Table 2"),
    ("msmt17", "swin_tiny", "baseline", "both", (55.7, None), "appendix"),
    ("msmt17", "swin_tiny", "pwca", "both", (56.7, None), "appendix"),
)
# Where the paper states another value than the dataset's own recipe, which has TransReID's rate for vehicles.
STATED: Mapping[str, Mapping[str, Any]] = {"veri776": {"train.lr": 0.008}}


@dataclass(frozen=True)
class Row:
    """One line of a table: a training, and its published figures in percent by name, None for one not verified.

    `branch` says what is used at test: `both` is what the method has, `sa` the SA branch alone. `source` is where the
    paper has the figures.
    """

    dataset: str
    backbone: str
    method: Method
    branch: Literal["both", "sa"]
    published: Mapping[str, float | None]
    source: str

    @property
    def task(self) -> Task:
        """The kind of run."""
        return DATASETS[self.dataset]

    @property
    def run(self) -> str:
        """The name of the training, which rows of several tables may share."""
        return f"{self.dataset}-{self.backbone}-{self.method}"

    @property
    def name(self) -> str:
        """The name of the row."""
        return self.run if self.branch == "both" else f"{self.run}-{self.branch}"

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """What the row sets over its dataset's recipe."""
        return {
            "model.backbone": self.backbone,
            "model.method": self.method,
            "train.eval_every": 0,  # the paper's figures are of the last epoch
            **STATED.get(self.dataset, {}),
        }

    def config(self, settings: Mapping[str, Any] | None = None) -> Config:
        """All options of the training, under further ones; raises ConfigError for those that cannot be used."""
        return load_config(self.dataset, None, {**self.recipe, **(settings or {})}, KINDS[self.task])


def table_rows(table: Table) -> list[Row]:
    """The rows of a table, in the paper's order."""
    if table == "more":
        return [
            Row(dataset, backbone, method, branch, _by_name(dataset, figures), source)
            for dataset, backbone, method, branch, figures, source in MORE
        ]
    return list(_pairs(table))


def _pairs(table: Table) -> Iterator[Row]:
    values: Mapping[str, Mapping[str, tuple[Any, Any]]] = TABLE_1 if table == "1" else TABLE_2
    methods: tuple[Method, Method] = ("baseline", "dcal")
    for dataset in next(iter(values.values())):
        for backbone, cells in values.items():
            for method, figures in zip(methods, cells[dataset], strict=True):
                named = _by_name(dataset, figures if isinstance(figures, tuple) else (figures,))
                yield Row(dataset, backbone, method, "both", named, f"Table {table}")


def _by_name(dataset: str, figures: tuple[float | None, ...]) -> dict[str, float | None]:
    return dict(zip(FIGURES[DATASETS[dataset]], figures, strict=True))
