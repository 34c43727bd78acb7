"""check.py [JOB...]: make every kind of checkpoint that the pipelines write, let the clients read them, compare
their verdicts with st-verify's, and write test/reports/clients.md. test/clients/run starts it.

A job is one of those that jobs() names. With jobs named, only these run, and no report is written. WORK names a
folder that keeps the checkpoints for the next run."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import textwrap
from concurrent.futures import ThreadPoolExecutor

from faults import FAULTS, Copy
from report import Checks, text

HERE = pathlib.Path(__file__).resolve().parent
DATA = pathlib.Path("test/data/v4-nano")
REPORT = pathlib.Path("test/reports/clients.md")
AMAX = ["--amax", DATA / "golden/amax"]
CALIB = ["--calib", "test/data/text/calib-prose.jsonl", "--samples", "8", "--length", "64"]
MADE = {  # name: what makes it
    "experts": ["v4-experts", *AMAX],
    "experts, drafts cast": ["v4-experts", *AMAX, "--drafts", "cast"],
    "experts, requantized": ["v4-experts", *AMAX, "--lossy"],
    "mlp": ["v4-experts", *CALIB, "--recipe", "mlp"],
    "full": ["v4-full", *CALIB],
    "full, drafts cast": ["v4-full", *CALIB, "--drafts", "cast"],
    "bf16": ["v4-bf16"],
}
ENGINES = {"vllm": "vLLM", "sglang": "SGLang", "transformers": "transformers"}  # st-verify's name, and its title
MARK = "CHECK "


def made(command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True).stdout


def places(work):
    """{checkpoint: (its folder, that of its values in BF16)}"""
    folders = {name: work / name.replace(", ", "-").replace(" ", "-") for name in MADE}
    return {name: (folder, folder if name == "bf16" else folder.with_suffix(".bf16")) for name, folder in folders.items()}


def make(folders):
    """Make each checkpoint. One that is there is complete already."""
    for name, (folder, unpacked) in folders.items():
        pipeline, *options = MADE[name]
        made([f"pipelines/{pipeline}", "-q", *options, DATA / "ckpt", folder])
        if not unpacked.exists():
            made(["bash", "-o", "pipefail", "-c", 'bin/st-read "$1" | bin/nvfp4-unpack -q | bin/st-write -q "$2"',
                  "-", folder, unpacked])


def run(checks, client, script, arguments):
    """Run a client's script; yield what it finds: (case, message)."""
    case, last = None, "no message"
    with subprocess.Popen([sys.executable, HERE / script, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace") as process:
        for line in process.stdout:
            if not line.startswith(MARK):
                last = line.strip() or last
                continue
            message = json.loads(line[len(MARK):])
            case = message.get("case", case)
            checks.versions |= message.get("versions", {})
            yield case, message
    if process.returncode:
        checks.add("failed", script, client, f"ended with {process.returncode}: {textwrap.shorten(last, 200)}")


def expected(folder):
    """st-verify's verdicts: {(engine, with drafts): (verdict, rule)}."""
    done = subprocess.run(["bin/st-verify", "--values", "--json", folder], stdout=subprocess.PIPE, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {(f["engine"], f["speculation"]): (f["verdict"], f["rule"]) for f in found if f["what"] == "verdict"}


def judge(checks, subject, engine, draft, verdict, why, want):
    """What a client did, against what st-verify says that it does."""
    said, rule = want[engine, draft]
    result = "skipped" if said == "not known" else "passed" if said == verdict else "failed"
    what = (f": {why}" if why else "") + (f"; but st-verify says {said}" if said != verdict else "")
    checks.verdict(result, subject, ENGINES[engine], draft, verdict, what + (f": {rule}" if said != verdict and rule else ""))


def let_engines_load(checks, engine, subjects, drafts):
    """subjects: {name: (folder, unpacked)}"""
    cases, wants = [], {name: expected(folder) for name, (folder, _) in subjects.items()}
    for name, (folder, unpacked) in subjects.items():
        for draft in (False, True) if drafts else (False,):
            cases.append(f"{name}|{draft}={folder},{unpacked}" + (",draft" if draft else ""))
    judged = set()
    for case, message in run(checks, ENGINES[engine], f"{engine}_client.py", cases):
        name, _, draft = (case or "").partition("|")
        if "verdict" in message:
            judged.add(case)
            why = textwrap.shorten(message["why"], 200, placeholder=" ...")
            judge(checks, name, engine, draft == "True", message["verdict"], why, wants[name])
        elif "ok" in message:
            checks.add("passed" if message["ok"] else "failed", name, ENGINES[engine], message["what"])
    for case in sorted({case.partition("=")[0] for case in cases} - judged):
        checks.add("failed", case.partition("|")[0], ENGINES[engine], "came to no verdict")


def plain_checks(checks, client, script, arguments, subject=None):
    for case, message in run(checks, client, script, arguments):
        if "ok" in message:
            checks.add("passed" if message["ok"] else "failed", subject or case, client, message["what"])


def fault_places(work, good):
    """{fault: (folder, values in BF16)}: the values are to be the good checkpoint's."""
    return {name: (work / f"fault-{i}", good[1]) for i, name in enumerate(FAULTS)}


def plant(faults, good):
    for name, (folder, _) in faults.items():
        FAULTS[name](Copy(good[0], folder))


def check_reference(checks, work):
    source = os.environ.get("MODEL_OPTIMIZER", "")
    script = pathlib.Path(source) / "examples/deepseek/deepseek_v4/quantize_to_nvfp4.py"
    if not source:
        checks.add("skipped", "altered checkpoints", "Model Optimizer", "MODEL_OPTIMIZER names no checkout of it")
    else:
        plain_checks(checks, "Model Optimizer", "reference.py", [script, work], "altered checkpoints")


def jobs(work, folders, faults):
    """What can run at the same time, each a function of Checks."""
    cases = [f"{name}={folder},{unpacked}" for name, (folder, unpacked) in folders.items()]
    layer = [folders["experts"][0], folders["bf16"][0], DATA / "golden/eval-ids.safetensors", work]
    return {
        "vllm": lambda checks: let_engines_load(checks, "vllm", folders, True),
        "sglang": lambda checks: let_engines_load(checks, "sglang", folders, True),
        "transformers": lambda checks: let_engines_load(checks, "transformers", folders, False),
        "libraries": lambda checks: plain_checks(checks, "libraries", "libraries_client.py", cases),
        "arithmetic": lambda checks: plain_checks(checks, "vLLM's emulation", "arithmetic.py", layer, "experts"),
        "reference": lambda checks: check_reference(checks, work),
        "vllm-faults": lambda checks: let_engines_load(checks, "vllm", faults, False),
        "sglang-faults": lambda checks: let_engines_load(checks, "sglang", faults, False),
    }


def main():
    wanted, checks = sys.argv[1:], Checks()
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(os.environ.get("WORK") or folder)
        folders = places(work)
        faults = fault_places(work, folders["experts"])
        todo = jobs(work, folders, faults)
        if unknown := set(wanted) - set(todo):
            sys.exit(f"check-clients: no job {min(unknown)}; there are {', '.join(todo)}")
        make(folders)
        plant(faults, folders["experts"])
        results = {name: Checks() for name in wanted or todo}
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for done in [pool.submit(todo[name], result) for name, result in results.items()]:
                done.result()
        for result in results.values():
            checks.join(result)
    if not wanted:
        commands = {name: " ".join(map(str, command)) for name, command in MADE.items()}
        REPORT.write_text(text(checks, commands, list(faults)))
    print(checks.summary())
    sys.exit(checks.count["failed"] > 0)


main()
