"""check.py: make every kind of checkpoint that the pipelines write, let the clients read them, compare their
verdicts with st-verify's, and write test/reports/clients.md. test/clients/run starts it.

WORK names a folder that keeps the checkpoints for the next run."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import v3
from faults import FAULTS, Copy

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


class Checks:
    """The results of one job, or of all."""

    def __init__(self):
        self.count = {"passed": 0, "failed": 0, "skipped": 0}
        self.rows, self.versions = [], {}

    def join(self, other):
        for result, n in other.count.items():
            self.count[result] += n
        self.rows += other.rows
        self.versions |= other.versions

    def add(self, result, subject, client, what):
        """A check's result: passed, failed or skipped."""
        self.count[result] += 1
        self.rows.append((subject, client, what, result))
        print(f"{result:8}{subject}: {client}: {what}", flush=True)

    def summary(self):
        return ", ".join(f"{n} {result}" for result, n in self.count.items())


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
        checks.add("failed", script, client, f"ended with {process.returncode}: {last[:200]}")


def expected(folder):
    """st-verify's verdicts: {(engine, with drafts): (verdict, rule)}."""
    done = subprocess.run(["bin/st-verify", "--values", "--json", folder], stdout=subprocess.PIPE, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {(f["engine"], f["speculation"]): (f["verdict"], f["rule"]) for f in found if f["what"] == "verdict"}


def judge(checks, subject, engine, draft, verdict, why, want):
    """What a client did, against what st-verify says that it does."""
    what = ("with its drafts, " if draft else "") + verdict + (f": {why}" if why else "")
    said, rule = want[engine, draft]
    if said == "not known":
        checks.add("skipped", subject, ENGINES[engine], f"{what}; st-verify does not know")
    else:
        agree = said == verdict
        checks.add("passed" if agree else "failed", subject, ENGINES[engine],
                   what + ("" if agree else f"; but st-verify says {said}" + (f": {rule}" if rule else "")))


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
            why = " ".join(message["why"].split())[:160]
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


def table(out, rows):
    out.write("| checkpoint | client | what was checked | result |\n|---|---|---|---|\n")
    for row in rows:
        out.write("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n")


def write_report(checks, faults):
    with open(REPORT, "w") as out:
        out.write("# Clients\n\nThe code of serving engines and libraries reads what the pipelines make of the test "
                  "models, on a CPU: everything up to the kernels. Verdicts are those that the client's loader came to, "
                  "compared with st-verify's; a check passes if they agree. A draft that is *loaded silently wrong* is "
                  "so expected: no checkpoint serves vLLM and SGLang with speculation.\n\n"
                  "`make check-clients` writes this report.\n\n")
        out.write(", ".join(f"{name} {version}" for name, version in sorted(checks.versions.items())) + "\n\n")
        out.write(f"{checks.summary()}\n\n## Checkpoints\n\n")
        table(out, [row for row in checks.rows if row[0] not in faults])
        out.write("\n## Planted faults\n\nCopies of `experts`, and of V3's default, each with one fault.\n\n")
        table(out, [row for row in checks.rows if row[0] in faults])


def v3_jobs(work, faults):
    """Those of V3's family; adds its planted faults to `faults`."""
    folders = make(v3.made(work), unpack_v3)
    if not folders:
        return [lambda checks: checks.add("skipped", "v3", "all", f"{v3.FIXTURES} has no fixtures of V3")]
    planted = v3.plant(work, folders["v3, default"])
    faults.update(planted)
    return [
        lambda checks: let_engines_load(checks, "vllm", folders, True, "v3"),
        lambda checks: let_engines_load(checks, "sglang", folders, True, "v3"),
        lambda checks: let_engines_load(checks, "transformers", folders, False, "v3"),
        lambda checks: let_engines_load(checks, "vllm", planted, True, "v3"),
        lambda checks: let_engines_load(checks, "sglang", planted, True, "v3"),
    ]


def jobs(work):
    """What can run at the same time, each a function of Checks; and the names of the planted faults."""
    folders = make(v4_commands(work), unpack)
    faults = plant_faults(work, folders["experts"])
    every_fault = dict(faults)
    cases = [f"{name}={folder},{unpacked}" for name, (folder, unpacked) in folders.items()]
    layer = [folders["experts"][0], folders["bf16"][0], DATA / "golden/eval-ids.safetensors", work]
    return [
        lambda checks: let_engines_load(checks, "vllm", folders, True),
        lambda checks: let_engines_load(checks, "sglang", folders, True),
        lambda checks: let_engines_load(checks, "transformers", folders, False),
        lambda checks: plain_checks(checks, "libraries", "libraries_client.py", cases),
        lambda checks: plain_checks(checks, "vLLM's emulation", "arithmetic.py", layer, "experts"),
        lambda checks: check_reference(checks, work),
        lambda checks: let_engines_load(checks, "vllm", faults, False),
        lambda checks: let_engines_load(checks, "sglang", faults, False),
        *v3_jobs(work, every_fault),
    ], every_fault


def main():
    checks = Checks()
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(os.environ.get("WORK") or folder)
        todo, faults = jobs(work)
        results = [Checks() for _ in todo]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for done in [pool.submit(job, result) for job, result in zip(todo, results)]:
                done.result()
        for result in results:
            checks.join(result)
    write_report(checks, faults)
    print(checks.summary())
    sys.exit(checks.count["failed"] > 0)


main()
