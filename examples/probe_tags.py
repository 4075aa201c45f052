"""Parts of speech in MiniLM, layer by layer, with control task and description length: prints a table and draws docs/probing.jpg.

python examples/probe_tags.py [--quick] [--out docs/probing.jpg]    # 12 minutes on one core; fetches the tags (24 MB) and MiniLM once

The tags are those of 1,001 lines of the Penn Treebank; the MLP is that of Hewitt & Liang (2019), 1,000 hidden units.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import askwhy as aw
from askwhy.inside.probe import Probe, probe
from askwhy.zoo_tags import read_tags


def measured(quick: bool) -> Probe:
    sentences, tags = read_tags()
    model = aw.zoo.load("minilm-sentiment")
    if quick:
        return probe(model, sentences[:60], tags[:60], ["encoder.embeddings", "encoder.encoder.layer.2"], hidden=32, folds=2)
    return probe(model, sentences, tags, hidden=1000, folds=3, progress=True)


def tell(found: Probe) -> None:
    print(f"{'layer':<26}{'probe':<8}{'accuracy':>14}{'control':>10}{'selectivity':>13}{'kbit':>8}{'compression':>13}")
    for row in found.table():
        accuracy = f"{row['score']:.3f} ± {row['std_error']:.3f}"
        print(
            f"{row['layer']:<26}{row['probe']:<8}{accuracy:>14}{row['control']:>10.3f}{row['selectivity']:>13.3f}{row['bits'] / 1000:>8.1f}{row['compression']:>13.2f}"
        )
    print("\nselectivity of the linear probe less that of the MLP, in points:")
    for layer, (linear, mlp) in zip(found.layers, found.selectivity, strict=True):
        print(f"  {layer:<26}{100 * (linear - mlp):5.1f}")
    print(f"\n{found.summary()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="60 lines, two layers, a small MLP")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs/probing.jpg")
    given = parser.parse_args()
    found = measured(given.quick)
    tell(found)
    found.plot(title="parts of speech in MiniLM, and random tags").figure.savefig(given.out, dpi=110, pil_kwargs={"quality": 88})


if __name__ == "__main__":
    main()
