"""The table of goals and figures as Markdown, and its place in docs/performance.md."""

BEGIN = "<!-- measured: begin -->"
END = "<!-- measured: end -->"


def markdown(results):
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


def put_into(text, table):
    """The text with what stands between the two marks replaced."""
    before, found, rest = text.partition(BEGIN)
    _, also_found, after = rest.partition(END)
    if not (found and also_found):
        raise ValueError(f"no {BEGIN} and {END} in it")
    return f"{before}{BEGIN}\n{table}{END}{after}"
