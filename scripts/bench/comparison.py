"""The section `servers`: in every language, the function in processes behind the worker against
the servers of that language. Contenders of a language are measured one right after the other, in
rounds; a ratio is made within a round, so that work which comes and goes falls on both sides."""

import json
import statistics
import subprocess

import catalog
import cost
import machine
from programs import summary

ROUNDS = 3

FIGURES = ("per_second", "p50_us", "p99_us", "processor_us")


def compare(run):
    """In every language: the function behind the worker against servers of that language"""
    found, left_out = installed(run)
    rounds = []
    most = None if run.rounds_asked else 1 if run.is_quick else ROUNDS
    for number in run.rounds("servers", most=most):
        each = {}
        for language in found:
            each[language.name] = one_round(run, number, language, left_out)
        rounds.append(each)
    run.keep("servers", rounds)
    run.results["servers"] = {
        "rows": [row for language in found for row in rows(language, rounds)],
        "left_out": left_out,
        "rounds": len(rounds),
        "seconds": run.seconds,
        "others_share": cost.others_share(
            [
                figures
                for each in rounds
                for contenders in each.values()
                for figures in contenders.values()
            ]
        ),
        "machine": {**machine.facts(), "versions": machine.versions_of_servers()},
    }
    return []


def installed(run):
    """The languages with the contenders that can be measured, and why the others cannot."""
    found, left_out = [], []
    for language in catalog.languages():
        for contenders in (language.behind, language.inside):
            for contender in list(contenders):
                if missing := contender.missing():
                    reason = f"not installed: {', '.join(missing)}"
                    leave_out(run, language, contender, reason, left_out)
        if language.behind and language.inside:
            found.append(language)
        else:
            left_out.append(f"{language.name}: nothing to compare")
            run.tell("servers", left_out[-1])
    return found, left_out


def leave_out(run, language, contender, reason, left_out):
    for contenders in (language.behind, language.inside):
        if contender in contenders:
            contenders.remove(contender)
    left_out.append(f"{language.name}, {contender.name} ({reason})")
    run.tell("servers", f"left out: {left_out[-1]}")


def one_round(run, number, language, left_out):
    each, answers = {}, {}
    for contender in [*language.behind, *language.inside]:
        try:
            with contender.make() as server:
                answer = cost.answer(server)
                figures = cost.measure(
                    server, run.seconds, contender.connections, run.patience
                )
        except (RuntimeError, OSError, ValueError, subprocess.SubprocessError) as error:
            # A server that is installed and does not serve costs its own figures only.
            if contender in language.behind:
                raise
            leave_out(run, language, contender, str(error).splitlines()[0], left_out)
            continue
        each[contender.name], answers[contender.name] = figures, answer
        run.tell(
            f"servers, round {number}",
            f"{language.name}, {contender.name}: {figures['per_second']:,.0f}/s, "
            f"{figures['processor_us']:.1f} µs of processor time a request",
        )
    if any(answer != answers[language.behind[0].name] for answer in answers.values()):
        raise RuntimeError(f"{language.name}: not the same answers: {json.dumps(answers)}")
    return each


def rows(language, rounds):
    """For each way behind the worker and each server: figures of both, and their ratios."""
    here = [each[language.name] for each in rounds]
    made = []
    for ours in language.behind:
        for theirs in language.inside:
            if ours.connections not in (theirs.connections, catalog.CONNECTIONS):
                continue
            pairs = [
                (each[ours.name], each[theirs.name]) for each in here if theirs.name in each
            ]
            made.append(pair_row(language.name, ours, theirs, pairs))
    # By the ratio, not by the throughput: a ratio is made within a round, the same hour for both.
    usual = [row for row in made if row["ours_name"] == language.behind[0].name]
    fastest = min(usual, key=lambda row: row["ratios"]["per_second"]["median"])
    for row in made:
        row["is_fastest"] = row["theirs_name"] == fastest["theirs_name"]
    return made


def pair_row(language, ours, theirs, pairs):
    middle = lambda side: {
        figure: statistics.median(pair[side][figure] for pair in pairs) for figure in FIGURES
    }
    return {
        "language": language,
        "ours_name": ours.name,
        "theirs_name": theirs.name,
        # The time of a request says nothing beside one that had fewer others around it.
        "is_same_load": ours.connections == theirs.connections,
        "ours": middle(0),
        "theirs": middle(1),
        "ratios": {
            figure: summary([mine[figure] / other[figure] for mine, other in pairs])
            for figure in FIGURES
        },
    }
