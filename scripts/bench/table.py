"""The tables of figures as Markdown, and their places in docs/performance.md."""

SERVERS_HEAD = [
    "| language | behind the worker | server inside the language | requests/s | p50 | p99 | processor time |",
    "|---|---|---|---|---|---|---|",
]


def markdown(results):
    """All that was measured, as far as it has a table."""
    parts = [goals(results)] if results["rows"] else []
    parts += [make(results[name]) for name, make in PARTS.items() if name in results]
    return "\n".join(parts)


def goals(results):
    lines = ["| what | goal | figure | spread | |", "|---|---|---|---|---|"]
    for row in results["rows"]:
        texts = row["texts"]
        spread = "" if texts["low"] == texts["high"] else f"{texts['low']} – {texts['high']}"
        verdict = "" if not row["goal"] else "met" if row["is_met"] else "missed"
        lines.append(
            f"| {row['what']} | {row['goal']} | {texts['median']} | {spread} | {verdict} |"
        )
    machine, settings = results["machine"], results["settings"]
    versions = ", ".join(
        f"{name} {number}" for name, number in machine["versions"].items() if name != "rustc"
    )
    lines += [
        "",
        f"Medians of {settings['rounds']} interleaved rounds of {settings['seconds']:g} s, with the "
        f"lowest and highest; load generator, worker and handlers share {machine['processors']} "
        f"processors ({machine['processor']}, {machine['memory_gib']:g} GiB, Linux "
        f"{machine['kernel']}). {machine['date'][:10]}, {machine['versions']['rustc']}, {versions}.",
    ]
    return "\n".join(lines) + "\n"


def with_charts(table, charts, folder):
    """The table, and a line for each chart: `charts` are files and titles."""
    images = [f"![{title}]({folder}/{path.name})" for path, title in charts]
    return "\n\n".join([table.rstrip("\n"), *images]) + "\n"


def servers(compared):
    """Ratios of the worker's figure to the server's; then each contender's own figures."""
    lines = [
        "Medians of ratios, the figure behind the worker divided by the server's: above 1 × is "
        "better for requests, below 1 × for the other three. In brackets the lowest and the highest "
        "round. Times of a request are compared under the same number of connections only.",
        "",
        *SERVERS_HEAD,
    ]
    for row in compared["rows"]:
        names = [row["language"], row["ours_name"].removeprefix("faas-worker, ")]
        names.append(row["theirs_name"] + (" (fastest)" if row["is_fastest"] else ""))
        ratios = [
            ratio(figures) if row["is_same_load"] or name not in ("p50_us", "p99_us") else "–"
            for name, figures in row["ratios"].items()
        ]
        lines.append(f"| {' | '.join([*names, *ratios])} |")
    lines += ["", *absolute(compared["rows"]), "", *conditions(compared)]
    return "\n".join(lines) + "\n"


def languages(measured):
    """The examples: their figures, with the spread of those that are compared."""
    lines = [
        "| language | processor time a request | requests/s | against Rust | p50, 64 connections "
        "| p50, alone | memory of a process | first answer |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in measured["rows"]:
        file = row["file"]
        middle = {key: value["median"] for key, value in row.items() if isinstance(value, dict)}
        texts = [
            f"[{row['language']}](../examples/{file})",
            "{median:,.0f} µs ({low:,.0f} – {high:,.0f})".format(**row["processor_us"]),
            f"{middle['per_second']:,.0f}",
            ratio(row["ratio"]),
            f"{middle['p50_us']:,.0f} µs",
            f"{middle['alone_us']:,.0f} µs",
            f"{middle['process_mib']:.1f} MiB",
            f"{middle['start_ms']:,.0f} ms",
        ]
        lines.append(f"| {' | '.join(texts)} |")
    lines += ["", *conditions(measured)]
    return "\n".join(lines) + "\n"


def ratio(figures):
    return f"{figures['median']:.2f} × ({figures['low']:.2f} – {figures['high']:.2f})"


def absolute(rows):
    """A line for each contender: figures of this machine in this hour, to be compared with nothing."""
    lines = [
        "The medians behind these ratios, which say nothing on their own:",
        "",
        "| language | contender | requests/s | p50, µs | p99, µs | processor time a request, µs |",
        "|---|---|---|---|---|---|",
    ]
    seen = {}
    for row in rows:
        for side in ("ours", "theirs"):
            seen.setdefault((row["language"], row[f"{side}_name"]), row[side])
    for (language, name), figures in seen.items():
        texts = [f"{figures[key]:,.0f}" for key in ("per_second", "p50_us", "p99_us")]
        texts.append(f"{figures['processor_us']:.1f}")
        lines.append(f"| {language} | {name} | {' | '.join(texts)} |")
    return lines


def conditions(compared):
    """Under which conditions: the reader can then tell how far the figures carry."""
    machine, others = compared["machine"], compared["others_share"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    lines = [
        f"{machine['date'][:10]}, interleaved rounds: {compared['rounds']} of "
        f"{compared['seconds']:g} s for each. Load generator, worker and servers share "
        f"{machine['processors']} processors ({machine['processor']}, Linux {machine['kernel']}), "
        f"of which other work took {others['median']:.0%} ({others['low']:.0%} – "
        f"{others['high']:.0%}): only ratios count. {versions}."
    ]
    if compared["left_out"]:
        lines += ["", f"Left out: {'; '.join(compared['left_out'])}."]
    return lines


# Parts of docs/performance.md by the name of their section and of their marks.
PARTS = {"servers": servers, "languages": languages}


def put_into(text, part, name):
    """The text with what stands between the two marks of that name replaced."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = text.partition(begin)
    _, also_found, after = rest.partition(end)
    if not (found and also_found):
        raise ValueError(f"no {begin} and {end} in it")
    return f"{before}{begin}\n{part}{end}{after}"
