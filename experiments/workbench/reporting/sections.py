"""What a report says of one run: its sections, as texts, tables and charts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from experiments.cli.progress import duration
from experiments.cli.tables import DIGITS, number_text, speed_text, stated, verdict
from experiments.workbench.reporting import figures
from experiments.workbench.reporting.analysis import PARAMETER, Estimate, gaps, tails, worst_tasks
from experiments.workbench.reporting.figures import Chart
from experiments.workbench.reporting.runs import Media, Problem, ReportedRun, SavedEvaluation, family_and_agent
from experiments.workbench.reporting.settings import changed_settings, origin
from metarl.errors import shell_command
from metarl.evaluation import Evaluation, Measure, Score, logged_points

_NOT_ALL = " (not every family has them)"


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, and the number that it is sorted by (its text where it is none)."""

    text: str
    key: str
    link: str = ""  # the id of the part of the page that it leads to


@dataclass(frozen=True)
class Table:
    """A table that can be sorted by each column; the first one names the rows."""

    caption: str
    columns: list[str]
    rows: list[list[Cell]]
    words: frozenset[int] = frozenset({0})  # the columns that are aligned to the left
    is_settings: bool = False  # whether long words are broken


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading."""

    title: str
    texts: list[str] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    media: list[Media] = field(default_factory=list)


def sections_of(run: ReportedRun) -> list[Section]:
    """All sections of a run, each of which says so where the run has nothing for it."""
    return [
        *_in_short(run),
        _what_was_run(run),
        _problems(run),
        _adaptation(run),
        _splits(run),
        _tasks(run),
        _probe(run),
        _diagnosis(run),
        _learning(run),
        _time(run),
        _videos(run),
        _exploration(run),
        *_others(run),
    ]


def words(*texts: str) -> list[Cell]:
    return [Cell(text, text) for text in texts]


def number(value: float, digits: int = 2, link: str = "") -> Cell:
    if not math.isfinite(value):
        return Cell("not finite", "", link)
    return Cell(number_text(value, digits), repr(value), link)


def whole(value: float) -> Cell:
    return Cell(f"{value:,.0f}", repr(value))


def interval(low: float, high: float, digits: int = 2) -> Cell:
    if not (math.isfinite(low) and math.isfinite(high)):
        return Cell("", "")
    return Cell(f"{number_text(low, digits)} to {number_text(high, digits)}", repr(low))


def digits_of(measure: Measure) -> int:
    return DIGITS.get(measure.name, 2)


def _in_short(run: ReportedRun) -> list[Section]:
    """The numbers that a reader looks for first; no section without an evaluation."""
    if run.main is None:
        return []
    one = run.main.evaluation
    digits, first, last = digits_of(one.measure), one.points[0], one.points[-1]
    ends = (f"{one.measure.point} {at}" for at in (one.measure.first, one.measure.first + len(one.points) - 1))
    facts = [
        (f"{one.measure.name} at {end}", _with_interval(Estimate(score.mean, *score.ci95), digits))
        for end, score in zip(ends, (first, last), strict=True)
    ]
    facts = list(dict(facts).items())
    if one.gain is not None:
        facts.append(("gain, last over first", _with_interval(Estimate(one.gain.mean, *one.gain.ci95), digits)))
    facts += [(f"last point minus {name}", text) for name, text in _distances(one, digits).items()]
    for gap in gaps(run):
        if not gap.same_tasks and gap.quantity == one.measure.name:
            facts.append((f"{gap.better} over {gap.worse}", _with_interval(gap.estimate, digits)))
    for tail in tails(one):
        facts.append((f"mean of the worst {100 * tail.fraction:.0f} % of tasks", _with_interval(tail.estimate, digits)))
    name, _, speed = speed_text(one).partition(": ")
    facts += [(name, speed)] if speed else []
    return [Section("In short", [f"{_heading(one)}; in brackets 95 % intervals."], facts)]


def _heading(one: Evaluation) -> str:
    """What was measured, and on how many tasks."""
    text = f"{figures.measure_name(one.measure)} on {one.num_tasks:,} {one.split} tasks"
    return text[0].upper() + text[1:]


def _distances(one: Evaluation, digits: int) -> dict[str, str]:
    """How far the agent is from each bound at the last point, by the bound's name."""
    return {
        name.replace("_", "-"): number_text(one.points[-1].mean - values[-1], digits)
        for name, values in one.bounds.items()
    }


def _with_interval(estimate: Estimate, digits: int) -> str:
    value, low, high = (number_text(end, digits) for end in estimate)
    return f"{value} ({low} to {high})"


def _what_was_run(run: ReportedRun) -> Section:
    rows = [words(*setting) for setting in changed_settings(run.config)]
    columns = ["setting", "value", "default"]
    table = Table("Settings that differ from the defaults", columns, rows, frozenset(range(3)), is_settings=True)
    family, agent = family_and_agent(run)
    facts = [("family", family), ("agent", agent), *origin(run.config, run.meta)]
    if run.main is not None and run.main.evaluation.facts:
        facts.append(("facts of the evaluation", stated(run.main.evaluation.facts)))
    texts = [] if run.meta else ["meta.json is missing or damaged, so the command and the versions are not known."]
    texts += [] if rows else ["All settings are the defaults."]
    return Section("What was run", texts, facts, tables=[table] if rows else [])


def _problems(run: ReportedRun) -> Section:
    if not run.problems:
        return Section("Failures and warnings", ["None are known."])
    return Section("Failures and warnings", problems=run.problems)


def _adaptation(run: ReportedRun) -> Section:
    if run.main is None:
        return _without_evaluation("Adaptation", run)
    evaluation = run.main.evaluation
    texts = [_source(run.main)]
    if run.expected is not None and evaluation.split == "test":
        text = verdict(evaluation, run.expected)
        texts += [text] if all(problem.text != text for problem in run.problems) else []
    return Section("Adaptation", texts, charts=[figures.adaptation(run, evaluation)], tables=[_curve_table(evaluation)])


def _curve_table(evaluation: Evaluation) -> Table:
    """The curve by point, over the trial, and its gain, as `metarl evaluate` prints it."""
    measure, digits = evaluation.measure, digits_of(evaluation.measure)
    known = {name.replace("_", "-"): values for name, values in (evaluation.bounds | evaluation.metrics).items()}
    rows = [
        [
            Cell(f"{measure.point} {at}", str(at)),
            *_score(evaluation.points[at - measure.first], digits),
            *(number(values[at - measure.first], digits) for values in known.values()),
        ]
        for at in logged_points(measure, len(evaluation.points))
    ]
    empty = [Cell("", "")] * len(known)
    if len(evaluation.points) > 1 and measure.adds_up:
        rows.append([Cell("all episodes", "1e9"), *_score(evaluation.total, digits), *empty])
    if evaluation.gain is not None:
        rows.append([Cell("gain, last over first", "2e9"), *_score(evaluation.gain, digits), *empty])
    return Table(_heading(evaluation), [measure.point, "mean", "IQM", "95 % interval", *known], rows)


def _splits(run: ReportedRun) -> Section:
    title = "Train, test and ood"
    if not run.evaluations:
        return _without_evaluation(title, run)
    missing = [split for split in ("train", "test", "ood") if split not in run.evaluations]
    commands = [shell_command("metarl", "evaluate", run.path, "--split", split) for split in missing]
    problems = [
        Problem(f"{split} tasks were not evaluated{_NOT_ALL if split == 'ood' else ''}", command)
        for split, command in zip(missing, commands, strict=True)
    ]
    rows = []
    for split, saved in run.evaluations.items():
        one, digits = saved.evaluation, digits_of(saved.evaluation.measure)
        gain = [Cell("", "")] * 2 if one.gain is None else [number(one.gain.mean, digits), _ci(one.gain, digits)]
        ends = [number(one.points[0].mean, digits), number(one.points[-1].mean, digits), _ci(one.points[-1], digits)]
        rows.append([*words(split), whole(one.num_tasks), *ends, *gain, *words(one.tasks_hash or "unknown")])
    columns = ["split", "tasks", "first point", "last point", "95 % interval", "gain", "95 % interval of gain", "hash"]
    tables = [Table("Scores by split", columns, rows)]
    found = gaps(run)
    texts = []
    if found:
        texts.append(
            "The meta-overfitting gap, train over test, is how much better the agent is on training tasks than on test "
            "tasks, at the last point."
        )
        if any(gap.same_tasks for gap in found):
            texts.append(
                "Splits with equal hashes are the same tasks: the family draws both from one distribution with one "
                "seed, and their gap is zero whatever was learned. Evaluate one of them with another --seed."
            )
        rows = [
            [
                *words(f"{gap.better} over {gap.worse}", gap.quantity),
                number(gap.estimate.value, _digits(run)),
                Cell("the same tasks", "")
                if gap.same_tasks
                else interval(gap.estimate.low, gap.estimate.high, _digits(run)),
            ]
            for gap in found
        ]
        columns = ["gap", "of", "mean", "95 % interval"]
        tables.append(Table("Gaps between splits", columns, rows, frozenset({0, 1})))
    chart = figures.splits(run)
    return Section(title, texts, problems=problems, charts=[chart] if chart else [], tables=tables)


def _tasks(run: ReportedRun) -> Section:
    title = "Score by task"
    if run.main is None:
        return _without_evaluation(title, run)
    evaluation = run.main.evaluation
    if evaluation.per_task is None:
        command = shell_command("metarl", "evaluate", run.path, "--split", evaluation.split)
        return Section(title, problems=[Problem("the evaluation lacks the scores by task", command)])
    digits = digits_of(evaluation.measure)
    maps, num_hidden = figures.maps(evaluation)
    texts = [] if maps or num_hidden else [f"The tasks of {evaluation.family} have no parameters in the evaluation."]
    if num_hidden:
        texts.append(f"{num_hidden} more parameters explain less of the score and are not drawn.")
    tables = []
    found = tails(evaluation)
    if found:
        rows = [
            [
                Cell(f"{100 * tail.fraction:.0f} %", repr(tail.fraction)),
                whole(tail.num_tasks),
                *_estimate(tail.estimate, digits),
            ]
            for tail in found
        ]
        caption = f"Conditional value at risk: the mean over the worst tasks at the last {evaluation.measure.point}"
        tables.append(Table(caption, ["worst", "tasks", "CVaR", "95 % interval"], rows))
    worst = worst_tasks(evaluation)
    rows = [
        [whole(row["task"]), *(_of_task(name, value, digits) for name, value in row.items() if name != "task")]
        for row in worst
    ]
    tables.append(Table(f"The worst {len(worst)} tasks", list(worst[0]) if worst else ["task"], rows))
    return Section(title, texts, charts=maps, tables=tables)


def _probe(run: ReportedRun) -> Section:
    """What the state tells of the task, as `metarl probe` prints it."""
    title = "What the state tells of the task"
    if run.probe is None:
        per_task = None if run.main is None else run.main.evaluation.per_task
        if per_task is not None and not per_task.parameters:
            return Section(title, ["The tasks have no parameters to probe for."])
        return Section(title, problems=[Problem("it was not probed", shell_command("metarl", "probe", run.path))])
    saved, probing = run.probe, run.probe.probing
    at = "" if saved.iteration is None else f", iteration {saved.iteration:,}"
    text = (
        f"From {saved.file}{at}. Linear probes of {probing.state_size:,} numbers of state learned each parameter on "
        f"{probing.num_fitted:,} {saved.split} tasks and were tested on {probing.num_held_out:,} others. "
        "The shuffled control can know nothing."
    )
    parts = as_rows(probing.columns, probing.rows)
    table = Table("Score of the probes", parts["columns"], parts["rows"], frozenset({0, 2}))
    return Section(title, [text], tables=[table], media=saved.images)


def _diagnosis(run: ReportedRun) -> Section:
    """The verdicts of `metarl diagnose`, and the evidence under them."""
    title = "Diagnosis"
    if run.diagnosis is None:
        return Section(title, problems=[Problem("there is none", shell_command("metarl", "diagnose", run.path))])
    findings = run.diagnosis.findings
    rows = [words(finding.detector, finding.level, finding.verdict) for finding in findings]
    tables = [Table("Verdicts", ["detector", "level", "verdict"], rows, frozenset(range(3)))]
    for finding in findings:
        for one in finding.evidence:
            parts = as_rows(one.columns, one.rows)
            tables.append(Table(f"{finding.detector}: {one.title}", parts["columns"], parts["rows"]))
    return Section(title, tables=tables, media=run.diagnosis.images)


def _of_task(name: str, value: float, digits: int) -> Cell:
    """A score or a bound of a task as other scores are written; its parameters with as many digits as they have."""
    return Cell(f"{value:.4g}", repr(value)) if name.startswith(PARAMETER) else number(value, digits)


def _learning(run: ReportedRun) -> Section:
    measure = Measure() if run.main is None else run.main.evaluation.measure
    chart = None if run.main is None else figures.learning(run, measure)
    drawn = figures.sampled_tasks(run, measure)
    if chart is None:
        return Section("Learning", ["The log has no scores of this training."], charts=drawn)
    return Section("Learning", charts=[chart, *drawn])


def _time(run: ReportedRun) -> Section:
    title = "Where the time went"
    measure = Measure() if run.main is None else run.main.evaluation.measure
    found = figures.time_spent(run, measure)
    if found is None:
        return Section(title, ["The log does not say."])
    chart, split = found
    total = split.total_collecting + split.total_updating
    rows = [
        [
            *words(name),
            Cell(duration(seconds), repr(seconds)),
            Cell(f"{100 * seconds / total:.0f} %", repr(seconds / total)),
        ]
        for name, seconds in (("collecting", split.total_collecting), ("updating", split.total_updating))
        if total > 0
    ]
    samples = figures.sample_name(measure)
    text = f"{duration(total)} of meta-training, {split.rate:,.0f} {samples} per second; evaluations are not counted."
    return Section(title, [text], charts=[chart], tables=[Table("Time by part", ["part", "time", "fraction"], rows)])


def _videos(run: ReportedRun) -> Section:
    if run.videos:
        return Section("Videos of adaptation", media=run.videos)
    if not _acts(run):
        return Section("Videos of adaptation", ["There are none, as nothing acts in these tasks."])
    command = shell_command("metarl", "play", run.path)
    return Section("Videos of adaptation", problems=[Problem("there are none", command)])


def _exploration(run: ReportedRun) -> Section:
    if run.exploration is None:
        return Section(
            "Exploration", ["There is no image of trajectories; only families of the plane and grids draw it."]
        )
    return Section("Exploration", media=[run.exploration])


def _acts(run: ReportedRun) -> bool:
    """Whether an agent acts in the tasks, as far as the run says."""
    return run.main is None or run.main.evaluation.measure.name == "return"


def _others(run: ReportedRun) -> list[Section]:
    """Evaluations under other settings; no section without any."""
    rows = []
    for saved in run.others:
        one, digits = saved.evaluation, digits_of(saved.evaluation.measure)
        last = [number(one.points[-1].mean, digits), _ci(one.points[-1], digits)]
        rows.append([*words(saved.file), *words(one.split), whole(one.num_tasks), *last, *words(saved.checkpoint)])
    columns = ["file", "split", "tasks", "last point", "95 % interval", "checkpoint"]
    return [Section("Other evaluations", tables=[Table("Not shown above", columns, rows)])] if rows else []


def _without_evaluation(title: str, run: ReportedRun) -> Section:
    command = shell_command("metarl", "evaluate", run.path)
    return Section(title, problems=[Problem("the run has no evaluation", command)])


def _source(saved: SavedEvaluation) -> str:
    parts = [f"From {saved.file}"]
    parts += [f"iteration {saved.iteration}"] if saved.iteration is not None else []
    parts += [f"evaluation seed {saved.seed}"] if saved.seed is not None else []
    return f"{', '.join(parts)}."


def _digits(run: ReportedRun) -> int:
    return 2 if run.main is None else digits_of(run.main.evaluation.measure)


def _score(score: Score, digits: int) -> Sequence[Cell]:
    return number(score.mean, digits), number(score.iqm, digits), _ci(score, digits)


def _ci(score: Score, digits: int) -> Cell:
    return interval(*score.ci95, digits)


def _estimate(estimate: Estimate, digits: int) -> Iterable[Cell]:
    return number(estimate.value, digits), interval(estimate.low, estimate.high, digits)


def as_rows(columns: Sequence[str], cells: Iterable[Sequence[str]]) -> dict[str, Any]:
    """Columns and rows of a table that is given as text, sorted by the numbers that its cells begin with."""
    return {"columns": list(columns), "rows": [[Cell(text, _leading_number(text)) for text in row] for row in cells]}


def _leading_number(text: str) -> str:
    word = text.split(" ", 1)[0].replace(",", "")
    try:
        return repr(float(word))
    except ValueError:
        return text
