"""Renders a pipeline and leaves a test case for each property of the picture."""

import json
import os
import pathlib

import graphviz

picture = graphviz.Digraph()
for edge in [("manifest", "lock"), ("lock", "layers"), ("layers", "image")]:
    picture.edge(*edge)
svg = picture.pipe(format="svg").decode()

checks = {"is an SVG": "<svg" in svg, "has every node": all(name in svg for name in ("manifest", "lock", "layers", "image"))}
results = pathlib.Path(os.environ["IMAGEWRIGHT_RESULTS"]) / "cases.jsonl"
with results.open("w") as out:
    for name, holds in checks.items():
        case = {
            "name": name,
            "features": ["picture"],
            "test_batch_type": "Rendering",
            "status": "PASS" if holds else "FAIL",
            "severity": "NONE" if holds else "HIGH",
        }
        out.write(json.dumps(case) + "\n")
raise SystemExit(not all(checks.values()))
