"""Data flows one way: each file imports only what stands above it."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "downslope"

ORDER = [
    "errors",
    "garbage",
    "tables",
    "losses",
    "models",
    "sampling",
    "randomness",
    "data",
    "tabular",
    "objective",
    "problem_checks",
    "problem",
    "problem_rows",
    "problems.entry",
    "problems.functions",
    "problems.regressions",
    "problems.networks",
    "problems",
    "optimizers",
    "schedules",
    "grid",
    "ranges",
    "grid_checks",
    "groups",
    "engines.work",
    "engines.processes",
    "engines.layout",
    "engines.starts",
    "engines.program",
    "engines.looped",
    "engines.stacked",
    "engines.fused.instructions",
    "engines.fused.values",
    "engines.fused.slots",
    "engines.fused.blocks",
    "engines.fused.coefficients",
    "engines.fused.vector_basics",
    "engines.fused.vector_exponentials",
    "engines.fused.vector_logarithms",
    "engines.fused.vector_erf",
    "engines.fused.vector_remainders",
    "engines.fused.vector_turns",
    "engines.fused.vector_trigonometry",
    "engines.fused.vector_math",
    "engines.fused.trace",
    "engines.fused.whole_numbers",
    "engines.fused.calls",
    "engines.fused.elementwise",
    "engines.fused.indexing",
    "engines.fused.loops",
    "engines.fused.products",
    "engines.fused.reductions",
    "engines.fused.shapes",
    "engines.fused.lower",
    "engines.fused.spec",
    "engines.fused.frame",
    "engines.fused.rows",
    "engines.fused.orders",
    "engines.fused.passes",
    "engines.fused.update",
    "engines.fused.verdicts",
    "engines.fused.kernel",
    "engines.fused.cache",
    "engines.fused.compile",
    "engines.fused.coupling",
    "engines.fused.agreement",
    "engines.fused.separable",
    "engines.fused.sizes",
    "engines.fused.graphs",
    "engines.fused.affine",
    "engines.fused.columns",
    "engines.fused.cross_products",
    "engines.fused.cross_passes",
    "engines.fused.factor_graphs",
    "engines.fused.remembered",
    "engines.fused.least_squares",
    "engines.fused.rule_graphs",
    "engines.fused.prepare",
    "engines.fused.tiles",
    "engines.fused.glimpses",
    "engines.fused.run",
    "engines.fused.serve",
    "engines.fused",
    "engines",
    "explain.stability",
    "explain.minibatches",
    "explain.lanczos",
    "explain.curvature",
    "explain.places",
    "explain.preconditioner",
    "explain.english",
    "explain.english_loops",
    "explain.words",
    "explain.findings",
    "handwritten",
    "plan",
    "records",
    "predictions",
    "run",
    "runs",
    "folder",
    "fingerprint",
    "shards",
    "study",
    "progress",
    "execution",
    "descent_checks",
    "descent",
    "explain.facts",
    "explain.along",
    "explain.again",
    "explain.looking",
    "explain.units",
    "explain.separation",
    "explain.rows",
    "explain.samples",
    "explain.adaptive",
    "explain.known",
    "explain.judgement",
    "explain.judge_ends",
    "explain.judge_divergence",
    "explain.judge_swings",
    "explain.judge_speed",
    "explain.judge",
    "explain.judge_curve",
    "explain.trials",
    "explain.explaining",
    "explain",
    "searching.curve",
    "searching.search",
    "searching.request",
    "searching.closely",
    "searching.steps",
    "searching.words",
    "searching",
    "tuning",
    "searching.auto",
    "ranking",
    "views",
    "loops.graph",
    "loops.observed",
    "loops.hooks",
    "loops.observers",
    "loops.scheduling",
    "loops.tape",
    "loops.probe",
    "loops.faults",
    "loops.judge",
    "loops.watched",
    "loops.recorder",
    "loops",
    "watching",
    "distributions",
    "low_discrepancy",
    "search_spaces",
    "comparing.stats",
    "comparing.asking",
    "comparing.cases",
    "comparing.runs",
    "comparing.targets",
    "comparing.frames",
    "comparing.bands",
    "comparing.shares",
    "comparing.notes",
    "comparing.words",
    "comparing",
    "comparison",
    "scoring",
    "telling",
    "views.page_parts",
    "views.reporting.markup",
    "views.reporting.asked",
    "views.reporting.ranked",
    "views.reporting.code_problem",
    "views.reporting.code",
    "views.reporting.words",
    "views.reporting.asked_words",
    "views.reporting.figures",
    "views.reporting.findings",
    "views.reporting.page",
    "views.reporting",
    "views.report",
    "tablefit",
    "fit_report",
    "gallery",
    "cli_values",
    "cli_options",
    "cli_explain",
    "cli_compare",
    "cli_tune",
    "cli_report",
    "cli",
    "__main__",
]

DOWNWARD = {
    ("engines.fused.passes", "engines.fused.kernel"): "for annotations alone",
    ("engines.fused.update", "engines.fused.kernel"): "for annotations alone",
    ("engines.fused.verdicts", "engines.fused.kernel"): "for annotations alone",
    ("problem_checks", "problem"): "for annotations alone",
    ("descent", "searching.auto"): "lr='auto', imported when it is asked for",
    ("searching.words", "tuning"): "for annotations alone",
    ("tuning", "views"): "tuning.plot, imported when it is asked for",
    ("descent", "views"): "live=, imported when it is asked for",
    ("execution", "views"): "for annotations alone",
    ("run", "runs"): "Run.replay, and annotations",
    ("run", "explain.explaining"): "run.explain, imported when it is asked for",
    ("runs", "views"): "runs.plot, imported when it is asked for",
    ("views", "comparison"): "for annotations alone",
    ("explain.findings", "views"): "finding.plot, imported when it is asked for",
    ("runs", "views.report"): "runs.report, imported when it is asked for",
    ("runs", "study"): "runs.save, imported when it is asked for",
    ("runs", "explain.along"): "runs.curvature, imported when it is asked for",
    ("runs", "explain.explaining"): "runs.explain, imported when it is asked for",
}
"""The declared exceptions, each with its reason."""


def place(module):
    """The longest known name that `module` starts with."""
    fitting = [name for name in ORDER if module == name or module.startswith(f"{name}.")]
    return max(fitting, key=len, default=None)


def modules():
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if name:  # the package's own __init__ is its contents page
            yield name, path


def imported(path, own):
    package = own if path.name == "__init__.py" else own.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (
                a.name.removeprefix("downslope.") for a in node.names if "downslope" in a.name
            )
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield ".".join(filter(None, [package, node.module]))
            elif node.module == "downslope":
                yield from (alias.name for alias in node.names if alias.name != "__version__")
            elif (node.module or "").startswith("downslope."):
                name = node.module.removeprefix("downslope.")
                folder = SOURCE / name.replace(".", "/")
                for alias in node.names:
                    inside = (folder / f"{alias.name}.py").exists()
                    yield f"{name}.{alias.name}" if inside else name


@pytest.mark.parametrize(("name", "path"), list(modules()), ids=lambda value: str(value))
def test_imports_go_up(name, path):
    here = place(name)
    assert here is not None, f"{name} has no place in the order"
    for other in imported(path, name):
        there = place(other)
        assert there is not None, f"{name} imports {other}, which has no place in the order"
        if (here, there) not in DOWNWARD:
            assert ORDER.index(there) <= ORDER.index(here), f"{name} imports {other} from below"


def test_views_and_adapters_are_apart():
    for name, path in modules():
        if name.startswith("views."):
            assert not any(place(other) in ("cli", "tablefit") for other in imported(path, name))


def test_files_can_be_read_in_one_sitting():
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules()}
    assert max(lengths.values()) <= 400, {n: x for n, x in lengths.items() if x > 400}
