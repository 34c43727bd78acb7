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

import v3
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


def make(commands, unpack):
    """commands: {name: (command, folder)}. The folder of each checkpoint, and that of its BF16 values. One that is
    there is complete already."""
    folders = {}
    for name, (command, folder) in commands.items():
        made(["pipelines/" + command[0], "-q", *command[1:], folder])
        folders[name] = folder, folder if name.endswith("bf16") else unpack(folder)
    return folders


def v4_commands(work):
    return {name: ([*command, DATA / "ckpt"], work / name.replace(", ", "-").replace(" ", "-"))
            for name, command in MADE.items()}


def unpack(folder):
    """The NVFP4 matrices of a folder in BF16, beside it."""
    out = folder.with_suffix(".bf16")
    if not out.exists():
        made(["bash", "-o", "pipefail", "-c", 'bin/st-read "$1" | bin/nvfp4-unpack -q | bin/st-write -q "$2"',
              "-", folder, out])
    return out


def unpack_v3(folder):
    """The same of V3's family, where FP8 has one scale, too."""
    out = folder.with_suffix(".bf16")
    made(["pipelines/v3-bf16", "-q", folder, out])
    return out


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


def let_engines_load(checks, engine, subjects, drafts, script="client"):
    """subjects: {name: (folder, unpacked)}. A draft is tried where the trunk loads."""
    cases, wants = [], {name: expected(folder) for name, (folder, _) in subjects.items()}
    for name, (folder, unpacked) in subjects.items():
        for draft in (False, True) if drafts and wants[name][engine, False][0] == "loads" else (False,):
            cases.append(f"{name}|{draft}={folder},{unpacked}" + (",draft" if draft else ""))
    judged = set()
    for case, message in run(checks, ENGINES[engine], f"{engine}_{script}.py", cases):
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


def plant_faults(work, good):
    """{fault: (folder, unpacked)}: copies of a good checkpoint; their values are to be the good one's."""
    planted = {}
    for i, (name, plant) in enumerate(FAULTS.items()):
        planted[name] = work / f"fault-{i}", good[1]
        plant(Copy(good[0], planted[name][0]))
    return planted


def check_reference(checks, work):
    source = os.environ.get("MODEL_OPTIMIZER", "")
    script = pathlib.Path(source) / "examples/deepseek/deepseek_v4/quantize_to_nvfp4.py"
    if not source:
        checks.add("skipped", "altered checkpoints", "Model Optimizer", "MODEL_OPTIMIZER names no checkout of it")
    else:
        plain_checks(checks, "Model Optimizer", "reference.py", [script, work], "altered checkpoints")


def v3_jobs(work, faults):
    """Those of V3's family; adds its planted faults to `faults`."""
    folders = make(v3.made(work), unpack_v3)
    if not folders:
        return {"v3": lambda checks: checks.add("skipped", "v3", "all", f"{v3.FIXTURES} has no fixtures of V3")}
    planted = v3.plant(work, folders["v3, default"])
    faults.update(planted)
    return {
        "vllm-v3": lambda checks: let_engines_load(checks, "vllm", folders, True, "v3"),
        "sglang-v3": lambda checks: let_engines_load(checks, "sglang", folders, True, "v3"),
        "transformers-v3": lambda checks: let_engines_load(checks, "transformers", folders, False, "v3"),
        "vllm-v3-faults": lambda checks: let_engines_load(checks, "vllm", planted, True, "v3"),
        "sglang-v3-faults": lambda checks: let_engines_load(checks, "sglang", planted, True, "v3"),
    }


def jobs(work):
    """What can run at the same time, each a function of Checks; and the names of the planted faults."""
    folders = make(v4_commands(work), unpack)
    faults = plant_faults(work, folders["experts"])
    every_fault = dict(faults)
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
        **v3_jobs(work, every_fault),
    }, every_fault


def main():
    wanted, checks = sys.argv[1:], Checks()
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(os.environ.get("WORK") or folder)
        work.mkdir(parents=True, exist_ok=True)
        todo, faults = jobs(work)
        if unknown := set(wanted) - set(todo):
            sys.exit(f"check-clients: no job {min(unknown)}; there are {', '.join(todo)}")
        results = {name: Checks() for name in wanted or todo}
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for done in [pool.submit(todo[name], result) for name, result in results.items()]:
                done.result()
        for result in results.values():
            checks.join(result)
    if not wanted:
        commands = {name: " ".join(map(str, command)) for name, command in MADE.items()} | v3.described()
        REPORT.write_text(text(checks, commands, list(faults)))
    print(checks.summary())
    sys.exit(checks.count["failed"] > 0)


main()
