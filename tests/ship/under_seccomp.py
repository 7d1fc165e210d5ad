#!/usr/bin/python3
"""Runs a program under a seccomp profile in the format of container engines.

under_seccomp.py [--kill] [--without CALL,CALL] PROFILE PROGRAM [ARGUMENT...]

--kill: what the profile does not allow ends the process, instead of an error.
--without: these calls are not allowed either, and are answered EPERM, as Docker's own profile does.
"""

import argparse
import errno
import json
import os
import sys

import seccomp


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--without", default="")
    parser.add_argument("profile")
    parser.add_argument("program", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    with open(asked.profile, encoding="utf-8") as file:
        profile = json.load(file)
    without = [name for name in asked.without.split(",") if name]
    if profile["defaultAction"] != "SCMP_ACT_ERRNO":
        sys.exit("a profile that allows what it does not name is none")
    refused = seccomp.KILL_PROCESS if asked.kill else seccomp.ERRNO(profile["defaultErrnoRet"])
    known = seccomp.SyscallFilter(refused)
    for rule in profile["syscalls"]:
        if rule["action"] != "SCMP_ACT_ALLOW":
            sys.exit(f"an action that is not looked at here: {rule['action']}")
        for name in rule["names"]:
            if name in without:
                known.add_rule(seccomp.ERRNO(errno.EPERM), name)
                continue
            try:
                number = seccomp.resolve_syscall(seccomp.Arch(), name)
            except ValueError:
                sys.exit(f"there is no system call {name}")
            # A negative number is a call of another architecture.
            if number >= 0:
                known.add_rule(seccomp.ALLOW, name)
    known.load()
    os.execv(asked.program[0], asked.program)


main()
