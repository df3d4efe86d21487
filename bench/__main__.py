"""Runs benchmarks one after the other: `python -m bench [NAME ...]`; `--list` lists them."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

BENCHMARKS: dict[str, list[str]] = {
    "throughput": ["-m", "bench.check_throughput", "--server", "fast"],
    "throughput-grpcio": ["-m", "bench.check_throughput", "--server", "grpcio"],
    "decision": ["-m", "bench.decision_cost"],
    "identity": ["-m", "bench.identity_cost"],
    "telemetry": ["-m", "bench.telemetry_cost"],
    "caches": ["-m", "bench.cache_savings"],
    "devices": ["-m", "bench.device_inventory"],
    "facts": ["-m", "bench.fact_cost"],
    "fact-reload": ["-m", "bench.fact_reload"],
    "following": ["-m", "bench.following"],
    "following-tls": ["-m", "bench.following", "--tls"],
    "following-load": ["-m", "bench.following", "load"],
    "minting": ["-m", "bench.minting_cost"],
    "rules": ["-m", "bench.matching_scale", "--rules", "10000"],
    "rules-100000": ["-m", "bench.matching_scale"],
}
_QUICK = ("throughput", "decision", "identity", "rules")


def main() -> int:
    """Run the named benchmarks, by default the quick ones (about two minutes). Returns 1 if one of them fails."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--list", action="store_true", help="list the benchmarks and exit")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"unknown benchmark `{unknown[0]}`; choose from {', '.join(BENCHMARKS)}")
    if chosen.list:
        print("\n".join(BENCHMARKS))
        return 0
    worst = 0
    for name in chosen.names or _QUICK:
        print(f"\n=== {name}: python {' '.join(BENCHMARKS[name])}", flush=True)
        done = subprocess.run([sys.executable, *BENCHMARKS[name]], cwd=Path(__file__).parents[1], check=False)
        worst = max(worst, int(done.returncode != 0))
    return worst


if __name__ == "__main__":
    sys.exit(main())
