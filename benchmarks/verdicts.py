"""How often findings are right: runs of known verdict, made by the rules of tests/known_runs.py.

``--shift N`` makes another set by the same rules, which no threshold was ever set by. Printed are
the table of confusions, the claims that were certain and wrong, and how often advice held.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import known_runs


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shift", type=int, default=0, help="added to every seed")
    known_runs.SHIFT = parser.parse_args().shift
    begun = time.perf_counter()
    cases = known_runs.all_cases()
    made, explained, right, certain_wrong, held, followed = time.perf_counter(), 0.0, 0, [], 0, 0
    pairs = []
    for runs, some in known_runs.together(cases):
        start = time.perf_counter()
        findings = runs.explain()
        explained += time.perf_counter() - start
        for case, finding in zip(some, findings, strict=True):
            true, judged = (case.verdict, case.cause), (finding.verdict, finding.cause)
            pairs.append((true, judged))
            right += true == judged
            if true != judged and finding.confidence == "certain":
                certain_wrong.append((case.name, finding.sentence))
            if finding.advice is not None and finding.confidence != "unknown":
                followed += 1
                held += finding.try_it().held
    print(known_runs.confusion(pairs))
    print(f"right: {right} of {len(pairs)}; certain and wrong: {len(certain_wrong)}")
    for name, sentence in certain_wrong:
        print(f"  {name}: {sentence}")
    print(f"advice that was likely or better held in {held} of {followed}")
    print(f"{made - begun:.0f} s to make them, {explained:.0f} s to explain them")


if __name__ == "__main__":
    main()
