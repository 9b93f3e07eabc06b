"""The tables: medians of each client, and kafka-courier relative to the best other client in each column.

Rules: only verified runs count. Memory is compared with the leanest client that reaches 70 % of the best throughput,
because a client that sends little also holds little.
"""

from statistics import median

from .scenarios import OURS

COLUMNS = ["client", "records/s", "CPU µs/record", "user + system", "peak MB", "p50 ms", "p99 ms", "p99.9 ms",
           "bytes/record", "records/batch", "broker cores", "others' cores", "verified"]


def pick(runs, noisy):
    """Returns the undisturbed runs, or the three least disturbed ones."""
    good = [run for run in runs if run["ok"]]
    return [run for run in good if run["other_cores"] < noisy] or sorted(good, key=lambda run: run["other_cores"])[:3]


def figures(runs):
    of = lambda key: median(run[key] for run in runs)
    return {key: of(key) for key in ("msgs_per_s", "cpu_us_per_msg", "peak_mb", "p50_ms", "p99_ms", "p999_ms",
                                     "broker_cores", "other_cores", "user_s", "sys_s", "log_bytes", "log_records", "log_batches")}


def row(name, runs, counted):
    f, n = figures(counted), counted[0]["messages"]
    return [name, f"{f['msgs_per_s']:,.0f}", f"{f['cpu_us_per_msg']:.2f}", f"{f['user_s'] * 1e6 / n:.2f} + {f['sys_s'] * 1e6 / n:.2f}",
            f"{f['peak_mb']:.0f}", f"{f['p50_ms']:.2f}", f"{f['p99_ms']:.2f}", f"{f['p999_ms']:.2f}",
            f"{f['log_bytes'] / f['log_records']:.0f}", f"{f['log_records'] / f['log_batches']:.0f}",
            f"{f['broker_cores']:.2f}", f"{f['other_cores']:.2f}", f"{sum(run['ok'] for run in runs)}/{len(runs)}"]


def ratios(ours, by_name):
    """Returns our figures relative to the best other client, with that client's name."""
    peers = {name: figures(runs) for name, runs in by_name.items() if name not in OURS}
    if not peers or ours not in by_name:
        return None
    mine = figures(by_name[ours])
    fast = max(peer["msgs_per_s"] for peer in peers.values())
    lean = {name: peer for name, peer in peers.items() if peer["msgs_per_s"] >= 0.7 * fast}
    cells = []
    for key, best, among in (("msgs_per_s", max, peers), ("cpu_us_per_msg", min, peers), ("peak_mb", min, lean),
                             ("p50_ms", min, peers), ("p99_ms", min, peers)):
        name = best(among, key=lambda name: among[name][key])
        cells.append(f"{mine[key] / max(among[name][key], 1e-9):.2f} ({name})")
    return [ours, *cells]


def markdown(rows):
    return "\n".join(["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0]),
                      *("| " + " | ".join(row) + " |" for row in rows[1:])])


def report(name, scenario, results, noisy):
    """Returns one scenario's tables as Markdown. `results` holds each client's runs."""
    by_name = {client: pick(runs, noisy) for client, runs in results.items()}
    by_name = {client: runs for client, runs in by_name.items() if runs}
    rows = [COLUMNS] + [row(client, results[client], runs) for client, runs in by_name.items()]
    text = [f"### {name}: {scenario.words()}", "", markdown(rows), ""]
    stood = [line for line in (ratios(ours, by_name) for ours in OURS) if line]
    if stood:
        text += [markdown([["ours / best peer", "throughput", "CPU", "peak memory", "p50", "p99"], *stood]), ""]
    notes = {client: f"{client} {runs[0]['version']}" + (f" ({runs[0]['note']})" if runs[0].get("note") else "")
             for client, runs in by_name.items()}
    text += ["; ".join(notes.values()) + ".", ""]
    missing = [client for client in results if client not in by_name]
    if missing:
        text += ["No valid run: " + ", ".join(missing) + ".", ""]
    return "\n".join(text)
