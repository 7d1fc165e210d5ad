"""Names that there are, for requests that are meant to be taken: made up ones would all be refused.

Most cases get a room of CAFFIS_TEST_ROOMS, a user of CAFFIS_TEST_USERS and a message that there is; the others
keep what was made up. What is bad on purpose is left as it is.
"""

import os
import random

import schemathesis
from schemathesis import GenerationMode

ROOMS = os.environ["CAFFIS_TEST_ROOMS"].split(",")
USERS = os.environ["CAFFIS_TEST_USERS"].split(",")
REPORTS = os.environ["CAFFIS_TEST_REPORTS"].split(",")
ADMIN_TOKEN = os.environ["CAFFIS_TEST_ADMIN_TOKEN"]
EMOJIS = ["👍", "❤", "🎉", "👨‍👩‍👧"]
MESSAGES_MAX = 12
# Of ten good cases, so many get names that there are.
REAL_OF_TEN = 8


@schemathesis.hook
def map_case(context, case):
    if case.meta is None or case.meta.generation.mode != GenerationMode.POSITIVE:
        return case
    names = case.path_parameters or {}
    # By what was made up, so that a case is the same when it is run again.
    chance = random.Random(repr(sorted(names.items(), key=str)) + repr(case.body))
    if names and chance.randrange(10) < REAL_OF_TEN:
        real = {
            "room_id": chance.choice(ROOMS),
            "user_id": chance.choice(USERS),
            "message_seq": chance.randint(1, MESSAGES_MAX),
            "emoji": chance.choice(EMOJIS),
            "report_id": chance.choice(REPORTS),
        }
        for name in names:
            names[name] = real.get(name, names[name])
    body = case.body
    if isinstance(body, dict) and chance.randrange(10) < REAL_OF_TEN:
        if isinstance(body.get("text"), str) and not body["text"].strip():
            body["text"] += "text"
        for name in ("member_ids", "user_ids"):
            if isinstance(body.get(name), list):
                body[name] = chance.sample(USERS, chance.randint(1, len(USERS)))
    return case
