"""Started as a script by `evenhand.rewards.isolation`: confines itself as told, then is one side of a test.

Its only argument is JSON: `role` (program, tests or probe), `mode` (bwrap, namespaces or none), `folder`, `visible`, limits, and
the numbers of its descriptors.
"""

import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import confine
import examiner
import program


def confined(told):
    """Everything that the mode promises; an OSError where the machine refuses one of it."""
    linux = sys.platform == "linux"
    user = None
    if linux:
        confine.die_with_parent()
    if told["mode"] == "namespaces":
        may_change = os.getuid() == 0
        confine.namespaces()
        confine.root(told["folder"], told["visible"], told["total_bytes"])
        user = told["user"] if may_change and _maps(told["user"]) else None
    elif told["mode"] == "none":
        os.chdir(told["folder"])
    confine.limits(told["seconds"], told["memory"] << 20, told["file_bytes"], 64 if told["mode"] == "namespaces" else 0)
    if linux:
        confine.rights(user)
        confine.die_with_parent()  # a change of user forgets it
        try:
            confine.system_calls()
        except OSError:
            if told["mode"] != "none":
                raise


def _maps(user):
    """Whether this user exists in the namespace."""
    try:
        with open("/proc/self/uid_map") as file:
            return any(int(first) <= user < int(first) + int(count) for first, _, count in map(str.split, file))
    except OSError:
        return False


def main():
    told = json.loads(sys.argv[1])
    sources = json.load(sys.stdin) if told["role"] == "tests" else None
    confined(told)
    if told["role"] == "program":
        program.run(told["channel"])
    elif told["role"] == "tests":
        examiner.run(told["channel"], told["verdict"], sources)
    else:
        print("confined")


if __name__ == "__main__":
    main()
