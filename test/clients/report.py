"""report.py: the results of all checks, and the report about them."""

INTRODUCTION = """# Clients

Made by `make check-clients`: the code of serving engines and libraries reads what the pipelines make of the test
model, on a CPU and without a server. Of the engines, everything up to the kernels is their own.
"""
VERDICTS = """
## Verdicts

What each client's loader makes of a checkpoint: it *loads*, if every parameter of the model then holds the
checkpoint's values; it *refuses*; or it *loads silently wrong*. A check passes if `st-verify` says the same;
where it does not, the verdict is **bold**. No NVFP4 checkpoint serves both vLLM and SGLang with drafts.
"""
FAULTS = """
## Planted faults

Copies of `experts`, each with one fault; without drafts.
"""
ROWS = """
## All checks
"""


class Checks:
    """The results of one job, or of all."""

    def __init__(self):
        self.count = {"passed": 0, "failed": 0, "skipped": 0}
        self.rows, self.versions, self.verdicts = [], {}, {}

    def join(self, other):
        for result, n in other.count.items():
            self.count[result] += n
        self.rows += other.rows
        self.versions |= other.versions
        self.verdicts |= other.verdicts

    def add(self, result, subject, client, what):
        """A check's result: passed, failed or skipped."""
        self.count[result] += 1
        self.rows.append((subject, client, what, result))
        print(f"{result:8}{subject}: {client}: {what}", flush=True)

    def verdict(self, result, subject, client, draft, verdict, what):
        self.verdicts[subject, client + (", drafts" if draft else "")] = verdict if result == "passed" else f"**{verdict}**"
        self.add(result, subject, client, ("with its drafts, " if draft else "") + verdict + what)

    def summary(self):
        return ", ".join(f"{n} {result}" for result, n in self.count.items())


def table(head, rows):
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n" + "".join("| " + " | ".join(line) + " |\n" for line in lines)


def verdicts(checks, subjects):
    """A row for each subject, a column for each client that came to a verdict on one of them."""
    clients = [c for c in dict.fromkeys(client for _, client in checks.verdicts) if any((s, c) in checks.verdicts for s in subjects)]
    return clients, [[checks.verdicts.get((subject, client), "") for client in clients] for subject in subjects]


def text(checks, commands, faults):
    """commands: {checkpoint: what made it}; faults: their names."""
    clients, cells = verdicts(checks, commands)
    made = [[name, f"`{command}`", *row] for (name, command), row in zip(commands.items(), cells)]
    engines, planted = verdicts(checks, faults)
    return (INTRODUCTION + table(["client", "release"], sorted(checks.versions.items())) + f"\n{checks.summary()}\n"
            + VERDICTS + table(["checkpoint", "made by", *clients], made)
            + FAULTS + table(["fault", *engines], [[name, *row] for name, row in zip(faults, planted)])
            + ROWS + table(["checkpoint", "client", "what was checked", "result"], checks.rows))
