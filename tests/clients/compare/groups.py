"""Requests to coordinators of groups, at the edge of what is allowed: each as fields to compare.

A coordinator is waited for by each probe, since the topic of groups is created by the first.
"""

import time

from wire import NO_TAGS, array, batch, compact_array, compact_text, i8, i16, i32, i64, text

OFFSET_COMMIT, OFFSET_FETCH, FIND_COORDINATOR, JOIN_GROUP, HEARTBEAT, LEAVE_GROUP, SYNC_GROUP = 8, 9, 10, 11, 12, 13, 14
DESCRIBE_GROUPS, LIST_GROUPS, DELETE_GROUPS, OFFSET_DELETE = 15, 16, 42, 47
CONSUMER_GROUP_HEARTBEAT, CONSUMER_GROUP_DESCRIBE = 68, 69
NOT_YET = (14, 15, 16)


def until_loaded(ask, error=lambda answer: answer["error"]):
    deadline = time.monotonic() + 30
    while True:
        answer = ask()
        if error(answer) not in NOT_YET:
            return answer
        assert time.monotonic() < deadline, f"no coordinator: {answer}"
        time.sleep(0.05)


def find(client, key, kind=0, version=2):
    def once():
        if version >= 4:
            body = i8(kind) + compact_array([compact_text(key)]) + NO_TAGS
            response = client.call(FIND_COORDINATOR, version, body, flexible=True)
            response.tags()
            response.i32()
            response.unsigned()
            response.compact_text()
            node, host, _ = response.i32(), response.compact_text(), response.i32()
            return {"error": response.i16(), "node": node, "host": host}
        response = client.call(FIND_COORDINATOR, version, text(key) + i8(kind))
        response.i32()
        error, _ = response.i16(), response.text()
        return {"error": error, "node": response.i32(), "host": response.text()}

    return until_loaded(once)


def join(client, group, member="", session=10_000, kind="consumer", protocols=("range",), instance=None, version=5,
    metadata=b"m",
):
    """What is random of the member's id is left out."""

    def once():
        named = [text(protocol) + i32(len(metadata)) + metadata for protocol in protocols]
        ids = text(group) + i32(session) + i32(10_000) + text(member) + text(instance)
        response = client.call(JOIN_GROUP, version, ids + text(kind) + array(named))
        response.i32()
        error, generation, protocol = response.i16(), response.i32(), response.text()
        leader, given = response.text(), response.text()
        members = response.array(lambda: (response.text(), response.text(), response.array(response.i8)))
        client.member = given
        told = {"error": error, "generation": generation, "protocol": protocol, "leads": bool(given) and leader == given}
        return {**told, "has id": bool(given), "members": [(one[1], one[2]) for one in members]}

    return until_loaded(once)


def joined(client, group, **options):
    """A member that has joined and synced: its id."""
    find(client, group)
    if "instance" in options:
        answer = join(client, group, **options)
    else:
        join(client, group, **options)
        answer = join(client, group, member=client.member, **options)
    assert answer["error"] == 0, answer
    member = client.member
    assert sync(client, group, member, [(member, b"part")])["error"] == 0
    return member


def sync(client, group, member, parts=(), generation=1, instance=None):
    def once():
        given = [text(one) + i32(len(part)) + part for one, part in parts]
        body = text(group) + i32(generation) + text(member) + text(instance) + array(given)
        response = client.call(SYNC_GROUP, 3, body)
        response.i32()
        return {"error": response.i16(), "part": bytes(response.array(response.i8)).decode()}

    return until_loaded(once)


def heartbeat(client, group, member, generation=1, instance=None):
    def once():
        response = client.call(HEARTBEAT, 3, text(group) + i32(generation) + text(member) + text(instance))
        response.i32()
        return {"error": response.i16()}

    return until_loaded(once)


def leave(client, group, *members):
    def once():
        response = client.call(LEAVE_GROUP, 3, text(group) + array([text(one) + text(two) for one, two in members]))
        response.i32()
        error = response.i16()
        left = response.array(lambda: (response.text(), response.text(), response.i16()))
        return {"error": error, "members": [(instance, code) for _, instance, code in left]}

    return until_loaded(once)


def commit(client, group, topic, offset=7, member="", generation=-1, partition=0, metadata="", instance=None, version=7):
    def once():
        one = i32(partition) + i64(offset) + i32(-1) + text(metadata)
        body = text(group) + i32(generation) + text(member) + text(instance) + array([text(topic) + array([one])])
        response = client.call(OFFSET_COMMIT, version, body)
        response.i32()
        topics = response.array(lambda: (response.text(), response.array(lambda: (response.i32(), response.i16()))))
        return {"error": topics[0][1][0][1]}

    return until_loaded(once)


def fetched(client, group, topics, version=7):
    """`None` for the topics asks for all."""

    def once():
        named = None
        if topics is not None:
            named = [compact_text(name) + compact_array([i32(p) for p in parts]) + NO_TAGS for name, parts in topics]
        body = compact_text(group) + compact_array(named) + i8(0) + NO_TAGS
        response = client.call(OFFSET_FETCH, version, body, flexible=True)
        response.tags()
        response.i32()

        def partition():
            found = (response.i32(), response.i64(), response.i32(), response.compact_text(), response.i16())
            response.tags()
            return found

        def topic():
            found = client.plain(response.compact_text()), response.compact_array(partition)
            response.tags()
            return found

        found = response.compact_array(topic)
        return {"error": response.i16(), "topics": found}

    return until_loaded(once)


def delete_offsets(client, group, topics):
    def once():
        named = [text(name) + array([i32(p) for p in parts]) for name, parts in topics]
        response = client.call(OFFSET_DELETE, 0, text(group) + array(named))
        error, _ = response.i16(), response.i32()
        found = response.array(lambda: (response.text(), response.array(lambda: (response.i32(), response.i16()))))
        return {"error": error, "topics": [sorted(parts) for _, parts in found]}

    return until_loaded(once)


def delete(client, *groups):
    def once():
        response = client.call(DELETE_GROUPS, 1, array([text(group) for group in groups]))
        response.i32()
        codes = [code for _, code in response.array(lambda: (response.text(), response.i16()))]
        return {"error": next((code for code in codes if code in NOT_YET), 0), "codes": codes}

    return until_loaded(once)


def describe(client, group, version=4):
    def once():
        response = client.call(DESCRIBE_GROUPS, version, array([text(group)]) + i8(1))
        response.i32()
        response.i32()
        error, _, state, kind, protocol = (
            response.i16(),
            response.text(),
            response.text(),
            response.text(),
            response.text(),
        )
        members = response.array(
            lambda: (
                response.text(),
                response.text(),
                response.text(),
                response.text(),
                bytes(one & 0xFF for one in response.array(response.i8)),
                bytes(one & 0xFF for one in response.array(response.i8)),
            )
        )
        told = {"error": error, "state": state, "type": kind, "protocol": protocol}
        return {**told, "members": [one[1:] for one in members], "operations": response.i32()}

    return until_loaded(once)


def listed(client, group, states=(), kinds=()):
    def once():
        words = [compact_array([compact_text(word) for word in some]) for some in (states, kinds)]
        response = client.call(LIST_GROUPS, 5, b"".join(words) + NO_TAGS, flexible=True)
        response.tags()
        response.i32()
        error = response.i16()

        def one():
            found = [response.compact_text() for _ in range(4)]
            response.tags()
            return found

        return {"error": error, "groups": [one[1:] for one in response.compact_array(one) if one[0] == group]}

    return until_loaded(once)


def beat(
    client, group, member="m", epoch=0, instance=None, rack=None, timeout=10_000, topics=(), assignor=None, owned=(),
    expression=None, version=1,
):
    """What is assigned is told as its number of partitions."""

    def once():
        body = compact_text(group) + compact_text(member) + i32(epoch) + compact_text(instance) + compact_text(rack)
        body += i32(timeout) + compact_array(None if topics is None else [compact_text(name) for name in topics])
        if version >= 1:
            body += compact_text(expression)
        body += compact_text(assignor) + compact_array(owned) + NO_TAGS
        response = client.call(CONSUMER_GROUP_HEARTBEAT, version, body, flexible=True)
        response.tags()
        response.i32()
        error, _, given, told_epoch = response.i16(), response.compact_text(), response.compact_text(), response.i32()
        interval, assigned = response.i32(), None
        if response.i8() >= 0:

            def topic():
                response.take(16)
                count = len(response.compact_array(response.i32))
                response.tags()
                return count

            assigned = sum(response.compact_array(topic))
        told = {"error": error, "has id": bool(given), "epoch": told_epoch}
        return {**told, "interval": interval, "assigned": assigned}

    return until_loaded(once)


def register(probe):
    def in_group(name, run):
        def with_coordinator(client):
            group = client.fresh()
            find(client, group)
            return run(client, group)

        probe(f"group: {name}", with_coordinator)

    probe("group: coordinator", lambda c: find(c, c.fresh()))
    probe("group: coordinator, version 4", lambda c: find(c, c.fresh(), version=4))
    probe("group: coordinator of no name", lambda c: find(c, "")["error"])
    probe("group: coordinator of an unknown kind", lambda c: find(c, c.fresh(), kind=9)["error"])
    probe("group: topic of offsets is internal", lambda c: (find(c, "g"), internal(c))[1])
    probe("group: produce to the topic of offsets", lambda c: (find(c, "g"), produce_internal(c))[1])

    in_group("join without an id", lambda c, g: join(c, g))
    in_group("join without an id, version 5, static", lambda c, g: join(c, g, instance="one"))
    in_group("join with an id", lambda c, g: (join(c, g), join(c, g, member=c.member))[1])
    in_group("join with an unknown id", lambda c, g: join(c, g, member="nobody"))
    in_group("join no group", lambda c, g: join(c, ""))
    in_group("join with a short session", lambda c, g: join(c, g, session=5_999))
    in_group("join with a long session", lambda c, g: join(c, g, session=1_800_001))
    in_group("join without protocols", lambda c, g: join(c, g, instance="one", protocols=()))
    in_group("join without a type", lambda c, g: join(c, g, instance="one", kind=""))
    in_group("join with another type", lambda c, g: (joined(c, g), join(c, g, instance="one", kind="other"))[1])
    in_group("join with other protocols", lambda c, g: (joined(c, g), join(c, g, instance="x", protocols=("other",)))[1])
    in_group("join again, unchanged, as the leader", lambda c, g: join(c, g, member=joined(c, g)))
    in_group("static member comes back", lambda c, g: (joined(c, g, instance="one"), join(c, g, instance="one"))[1])
    in_group("static member that was replaced", lambda c, g: replaced(c, g))

    in_group("sync an unknown group", lambda c, g: sync(c, g, "m"))
    in_group("sync no group", lambda c, g: sync(c, "", "m"))
    in_group("sync an unknown member", lambda c, g: (joined(c, g), sync(c, g, "m"))[1])
    in_group("sync in another generation", lambda c, g: sync(c, g, joined(c, g), generation=7))
    in_group("sync again", lambda c, g: sync(c, g, joined(c, g)))
    in_group("heartbeat to an unknown group", lambda c, g: heartbeat(c, g, "m"))
    in_group("heartbeat to no group", lambda c, g: heartbeat(c, "", "m"))
    in_group("heartbeat", lambda c, g: heartbeat(c, g, joined(c, g)))
    in_group("heartbeat of an unknown member", lambda c, g: (joined(c, g), heartbeat(c, g, "m"))[1])
    in_group("heartbeat in another generation", lambda c, g: heartbeat(c, g, joined(c, g), generation=7))
    in_group("heartbeat with an unknown instance", lambda c, g: heartbeat(c, g, joined(c, g), instance="x"))
    in_group("leave an unknown group", lambda c, g: leave(c, g, ("m", None)))
    in_group("leave no group", lambda c, g: leave(c, "", ("m", None)))
    in_group("leave", lambda c, g: leave(c, g, (joined(c, g), None)))
    in_group("leave with others", lambda c, g: leave(c, g, (joined(c, g), None), ("m", None), ("", "x")))
    in_group("leave by instance", lambda c, g: (joined(c, g, instance="one"), leave(c, g, ("", "one")))[1])
    in_group("leave nobody", lambda c, g: (joined(c, g), leave(c, g))[1])

    in_group("commit without members", lambda c, g: commit(c, g, c.topic()))
    in_group("commit no group", lambda c, g: commit(c, "", c.topic()))
    in_group("commit of an unknown topic", lambda c, g: commit(c, g, "absent"))
    in_group("commit of an unknown partition", lambda c, g: commit(c, g, c.topic(), partition=9))
    in_group("commit of a negative offset", lambda c, g: commit(c, g, c.topic(), offset=-5))
    in_group("commit in a generation of no group", lambda c, g: commit(c, g, c.topic(), generation=1, member="m"))
    in_group("commit without being a member", lambda c, g: (joined(c, g), commit(c, g, c.topic()))[1])
    in_group("commit of a member", lambda c, g: commit(c, g, c.topic(), member=joined(c, g), generation=1))
    in_group(
        "commit in another generation", lambda c, g: commit(c, g, c.topic(), member=joined(c, g), generation=7)
    )
    in_group("commit with metadata of 4096", lambda c, g: commit(c, g, c.topic(), metadata="m" * 4096))
    in_group("commit with metadata of 4097", lambda c, g: commit(c, g, c.topic(), metadata="m" * 4097))
    in_group("fetch of an unknown group", lambda c, g: fetched(c, g, [(c.topic(), [0])]))
    in_group("fetch of no group", lambda c, g: fetched(c, "", None))
    in_group("fetch everything of an unknown group", lambda c, g: fetched(c, g, None))
    in_group("fetch of an unknown topic", lambda c, g: fetched(c, g, [("absent", [0, 7])]))
    in_group("fetch what was committed", lambda c, g: committed(c, g))
    in_group("delete offsets of an unknown group", lambda c, g: delete_offsets(c, g, [(c.topic(), [0])]))
    in_group("delete offsets of no group", lambda c, g: delete_offsets(c, "", [(c.topic(), [0])]))
    in_group("delete offsets", lambda c, g: deleted_offsets(c, g))
    in_group("delete offsets of a group with members", lambda c, g: (joined(c, g), delete_offsets(c, g, [(c.topic(), [0])]))[1])
    in_group("delete an unknown group", lambda c, g: delete(c, g))
    in_group("delete no group", lambda c, g: delete(c, ""))
    in_group("delete a group with members", lambda c, g: (joined(c, g), delete(c, g))[1])
    in_group("delete a group of offsets", lambda c, g: (commit(c, g, c.topic()), delete(c, g, g))[1]["codes"][:1])
    in_group("describe an unknown group", lambda c, g: describe(c, g))
    in_group("describe a group", lambda c, g: (joined(c, g), describe(c, g))[1])
    in_group("describe an empty group", lambda c, g: (leave(c, g, (joined(c, g), None)), describe(c, g))[1])
    in_group("describe a group of offsets", lambda c, g: (commit(c, g, c.topic()), describe(c, g))[1])
    in_group("list a group", lambda c, g: (joined(c, g), listed(c, g))[1])
    in_group("list by state", lambda c, g: (joined(c, g), listed(c, g, states=["stable"]))[1])
    in_group("list by another state", lambda c, g: (joined(c, g), listed(c, g, states=["Empty"]))[1])
    in_group("list by type", lambda c, g: (joined(c, g), listed(c, g, kinds=["classic"]))[1])
    in_group("list by an unknown type", lambda c, g: (joined(c, g), listed(c, g, kinds=["strange"]))[1])
    in_group("list a group of offsets", lambda c, g: (commit(c, g, c.topic()), listed(c, g))[1])

    in_group("consumer joins", lambda c, g: beat(c, g, topics=[c.topic(3)]))
    in_group("consumer joins for an unknown topic", lambda c, g: beat(c, g, topics=["absent"]))
    in_group("consumer joins, version 0, without an id", lambda c, g: beat(c, g, member="", topics=[c.topic()], version=0))
    in_group("consumer joins without an id", lambda c, g: beat(c, g, member="", topics=[c.topic()]))
    in_group("consumer joins no group", lambda c, g: beat(c, "", topics=[c.topic()]))
    in_group("consumer joins without topics", lambda c, g: beat(c, g, topics=None))
    in_group("consumer joins with an empty list of topics", lambda c, g: beat(c, g, topics=[]))
    in_group("consumer joins without a time-out", lambda c, g: beat(c, g, topics=[c.topic()], timeout=-1))
    in_group("consumer joins without owned partitions", lambda c, g: beat(c, g, topics=[c.topic()], owned=None))
    in_group("consumer joins with an unknown assignor", lambda c, g: beat(c, g, topics=[c.topic()], assignor="strange"))
    in_group("consumer joins with range", lambda c, g: beat(c, g, topics=[c.topic(2)], assignor="range"))
    in_group("consumer joins with an expression", lambda c, g: beat(c, g, topics=None, expression=c.topic(2)))
    in_group("consumer joins with a wrong expression", lambda c, g: beat(c, g, topics=None, expression="("))
    in_group("consumer joins with an empty rack", lambda c, g: beat(c, g, topics=[c.topic()], rack=""))
    in_group("consumer joins with an empty instance", lambda c, g: beat(c, g, topics=[c.topic()], instance=""))
    in_group("consumer beats in an unknown group", lambda c, g: beat(c, g, epoch=3, topics=None, owned=None))
    in_group("consumer leaves an unknown group", lambda c, g: beat(c, g, epoch=-1, topics=None, owned=None))
    in_group("consumer leaves for a while without an instance", lambda c, g: beat(c, g, epoch=-2, topics=None))
    in_group("consumer in epoch -3", lambda c, g: beat(c, g, epoch=-3, topics=None))
    in_group("consumer stays", lambda c, g: stays(c, g, 0))
    in_group("consumer in a later epoch", lambda c, g: stays(c, g, 5))
    in_group("consumer joins again", lambda c, g: (lambda t: (beat(c, g, topics=[t]), beat(c, g, topics=[t]))[1])(c.topic(2)))
    in_group("consumer joins a classic group with members", lambda c, g: (joined(c, g), beat(c, g, topics=[c.topic()]))[1])
    in_group(
        "classic member joins a consumer group with members",
        lambda c, g: (beat(c, g, topics=[c.topic()]), join(c, g, instance="x"))[1],
    )
    in_group("classic group becomes a consumer group and back", lambda c, g: converted(c, g))
    in_group("classic member joins a consumer group", lambda c, g: joins_consumers(c, g))
    in_group("custom assignor keeps its group classic", lambda c, g: custom(c, g))
    in_group("static member changes its protocol and back", lambda c, g: static_changes(c, g))
    in_group("consumer commits", lambda c, g: consumer_commits(c, g))
    in_group("consumer group is listed", lambda c, g: (beat(c, g, topics=[c.topic()]), listed(c, g, kinds=["Consumer"]))[1])
    in_group("consumer group is described as a classic one", lambda c, g: (beat(c, g, topics=[c.topic()]), describe(c, g))[1])
    in_group("consumer group with members is deleted", lambda c, g: (beat(c, g, topics=[c.topic()]), delete(c, g))[1])


def internal(client):
    return client.metadata("__consumer_offsets")[0]["internal"]


def produce_internal(client):
    from wire import RECORD, batch

    return client.produce("__consumer_offsets", batch(int(time.time() * 1000)))["error"]


def replaced(client, group):
    first = joined(client, group, instance="one")
    join(client, group, instance="one")
    return heartbeat(client, group, first, instance="one")


def committed(client, group):
    topic = client.topic(2)
    commit(client, group, topic, metadata="kept")
    return fetched(client, group, [(topic, [1, 0])]), fetched(client, group, None)


def deleted_offsets(client, group):
    topic = client.topic(2)
    commit(client, group, topic)
    return delete_offsets(client, group, [(topic, [0, 1, 7])]), fetched(client, group, [(topic, [0])])


def stays(client, group, by):
    first = beat(client, group, topics=[client.topic(2)])
    return beat(client, group, epoch=first["epoch"] + by, topics=None, owned=None, timeout=-1)


def subscription(topic, owned=()):
    """Version 1: topics, no user data, what it has."""
    has = [text(topic) + array([i32(p) for p in owned])] if owned else []
    return i16(1) + array([text(topic)]) + i32(-1) + array(has)


def part_of(topic, partitions, user_data=None):
    data = i32(-1) if user_data is None else i32(len(user_data)) + user_data
    return i16(1) + array([text(topic) + array([i32(p) for p in partitions])]) + data


def converted(client, group):
    """A classic member with three partitions, a consumer that comes and leaves again."""
    topic = client.topic(3)
    find(client, group)
    consumer = {"protocols": ("range",), "metadata": subscription(topic)}
    join(client, group, **consumer)
    first = join(client, group, member=client.member, **consumer)
    member = client.member
    told = [first["generation"], raw_sync(client, group, member, 1, [(member, part_of(topic, [0, 1, 2]))])]
    told.append(beat(client, group, member="x", topics=[topic]))
    told.append(listed(client, group)["groups"])
    told.append(heartbeat(client, group, member, generation=1))
    told.append(heartbeat(client, group, member, generation=2))
    # As a cooperative consumer: it still has all.
    told.append(brief(join(client, group, member=member, protocols=("range",), metadata=subscription(topic, [0, 1, 2]))))
    told.append(raw_sync(client, group, member, 1, []))
    told.append(commit(client, group, topic, member=member, generation=1))
    told.append(heartbeat(client, group, member, generation=1))
    told.append(brief(join(client, group, member=member, **consumer)))
    told.append(raw_sync(client, group, member, 2, []))
    told.append(commit(client, group, topic, member=member, generation=2))
    told.append(commit(client, group, topic, member=member, generation=3))
    told.append(heartbeat(client, group, member, generation=2))
    told.append(raw_sync(client, group, member, 1, [])["error"])
    told.append(sync(client, group, "x", generation=2)["error"])
    told.append(heartbeat(client, group, "x", generation=2))
    told.append(describe(client, group)["error"])
    told.append(beat(client, group, member="x", epoch=2, topics=None, owned=None, timeout=-1)["epoch"])
    told.append(beat(client, group, member="x", epoch=-1, topics=None, owned=None, timeout=-1))
    told.append([one[1:] for one in listed(client, group)["groups"]])
    told.append(describe(client, group)["state"])
    told.append(heartbeat(client, group, member, generation=2))
    told.append(brief(join(client, group, member=member, **consumer)))
    told.append(raw_sync(client, group, member, 3, [(member, part_of(topic, [0]))])["error"])
    told.append(leave(client, group, (member, None)))
    return told


def joins_consumers(client, group):
    topic = client.topic(3)
    told = [beat(client, group, topics=[topic])["epoch"]]
    consumer = {"protocols": ("range",), "metadata": subscription(topic)}
    told.append(brief(join(client, group, **consumer)))
    told.append(brief(join(client, group, member=client.member, **consumer)))
    told.append(raw_sync(client, group, client.member, 3, []))
    told.append(heartbeat(client, group, client.member, generation=3))
    told.append(join(client, group, instance="y", protocols=("other",), metadata=subscription(topic))["error"])
    told.append(leave(client, group, (client.member, None), ("m", None)))
    return told


def static_changes(client, group):
    """A static member is not away between its incarnations, whatever each of them speaks."""
    topic = client.topic(3)
    find(client, group)
    classic = {"protocols": ("range",), "metadata": subscription(topic), "instance": "one"}
    join(client, group, **classic)
    member = client.member
    told = [raw_sync(client, group, member, 1, [(member, part_of(topic, [0, 1, 2]))])]
    told.append(beat(client, group, member="x", instance="one", topics=[topic]))
    told.append(heartbeat(client, group, member, instance="one"))
    told.append(beat(client, group, member="y", instance="one", topics=[topic])["error"])
    told.append([one[1:] for one in listed(client, group)["groups"]])
    back = join(client, group, **classic)
    told.append((back["error"], back["generation"]))
    told.append(raw_sync(client, group, client.member, back["generation"], []))
    told.append([one[1:] for one in listed(client, group)["groups"]])
    told.append(heartbeat(client, group, client.member, back["generation"], instance="one"))
    return told


def custom(client, group):
    topic = client.topic(3)
    find(client, group)
    consumer = {"protocols": ("mine",), "metadata": subscription(topic)}
    join(client, group, **consumer)
    join(client, group, member=client.member, **consumer)
    member = client.member
    raw_sync(client, group, member, 1, [(member, part_of(topic, [0, 1, 2], b"secret"))])
    return beat(client, group, member="x", topics=[topic]), heartbeat(client, group, member)


def raw_sync(client, group, member, generation, parts):
    def once():
        given = [text(one) + i32(len(part)) + part for one, part in parts]
        body = text(group) + i32(generation) + text(member) + text(None) + array(given)
        response = client.call(SYNC_GROUP, 3, body)
        response.i32()
        return {"error": response.i16(), "bytes": len(response.array(response.i8))}

    return until_loaded(once)


def brief(answer):
    """Names of topics, which are in the metadata of members, are not those of the other broker."""
    return {**answer, "members": len(answer["members"])}


def consumer_commits(client, group):
    topic = client.topic(2)
    first = beat(client, group, topics=[topic])
    codes = [commit(client, group, topic, member="m", generation=first["epoch"] + by) for by in (0, 1, -1)]
    return [code["error"] for code in codes], commit(client, group, topic, member="other", generation=1)["error"]
