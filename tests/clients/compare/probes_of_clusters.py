"""Requests about several nodes: replicas, who leads them, who steers. Both clusters have the nodes 1, 2 and 3.

Every probe that changes a partition has a topic of its own, so that no probe depends on another.
"""

import time

from client import growth
from wire import NO_TAGS, compact_array, compact_text, i8, i16, i32

DESCRIBE_QUORUM, ELECT_LEADERS, ALTER_REASSIGNMENTS, LIST_REASSIGNMENTS = 55, 43, 45, 46
DESCRIBE_CLUSTER, UNREGISTER_BROKER, ADD_RAFT_VOTER, REMOVE_RAFT_VOTER = 60, 64, 80, 81

TIMEOUT_MS = 10_000
PATIENCE_S = 20
NODES = [1, 2, 3]

# Probes by name: a function of a client to something comparable.
PROBES = {}


def probe(name, run):
    assert name not in PROBES, name
    PROBES[name] = run


def moved(client, name, expected):
    """Waits until the replicas of a topic are these, all of them in sync, and their leaders known."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        topic = client.metadata(name)[0]
        found = [(one["replicas"], sorted(one["in_sync"])) for one in topic["partitions"]]
        if found == [(nodes, sorted(nodes)) for nodes in expected] and all(
            one["leader"] > 0 for one in topic["partitions"]
        ):
            return
        assert time.monotonic() < deadline, f"{topic} is not on {expected}"
        time.sleep(0.02)


def placed(client, *partitions):
    """A new topic whose partitions have replicas on these nodes."""
    name = client.fresh()
    assert client.create(name, -1, -1, list(enumerate(partitions))) == {"error": 0}, name
    moved(client, name, list(partitions))
    return name


def creations():
    def created(name, *args, **options):
        def run(client):
            topic = client.fresh()
            answer = client.create(topic, *args, **options)
            if answer["error"]:
                return answer
            deadline = time.monotonic() + PATIENCE_S
            # Kafka's brokers learn of it later than the client.
            while not (partitions := client.metadata(topic)[0]["partitions"]):
                assert time.monotonic() < deadline, f"{topic} does not come to be"
                time.sleep(0.02)
            return answer, [sorted(one["replicas"]) for one in partitions]

        probe(f"create: {name}", run)

    created("a replica on each node", 3, 3)
    created("default replicas", 1, -1)
    created("one replica more than nodes", 1, 4)
    created("assigned", -1, -1, [(0, [3, 1]), (1, [2, 3])])
    created("assigned to different numbers of nodes", -1, -1, [(0, [1, 2]), (1, [1])])
    created("assigned to a known and an unknown node", -1, -1, [(0, [1, 9])])
    created("assigned to a negative node", -1, -1, [(0, [1, -1])])

    def grown(name, assignments):
        def run(client):
            topic = placed(client, [1, 2])
            return client.grow_all([growth(topic, 1 + len(assignments), assignments)])

        probe(f"grow: {name}", run)

    grown("assigned", [[2, 3]])
    grown("assigned to more nodes than before", [[1, 2, 3]])
    grown("assigned to fewer nodes than before", [[1]])
    grown("assigned to different numbers of nodes", [[1, 2], [3]])
    grown("assigned to an unknown node", [[1, 9]])


def named(topics):
    """Topics by name, each with partitions; None for all."""
    if topics is None:
        return compact_array(None)
    return compact_array(
        [compact_text(name) + compact_array([i32(one) for one in found]) + NO_TAGS for name, found in topics]
    )


def outcomes(client, response):
    """What became of each partition, by topic."""

    def partition():
        fields = response.i32(), response.i16()
        response.compact_text()
        response.tags()
        return fields

    def topic():
        fields = client.plain(response.compact_text()), sorted(response.compact_array(partition))
        response.tags()
        return fields

    return sorted(response.compact_array(topic))


def elect(client, kind, topics):
    """`topics` are names with partitions; None asks for all."""
    body = i8(kind) + named(topics) + i32(TIMEOUT_MS) + NO_TAGS
    response = client.call(ELECT_LEADERS, 2, body, flexible=True)
    response.tags()
    response.i32()
    return {"error": response.i16(), "topics": outcomes(client, response)}


def elections():
    for kind, number in {"preferred": 0, "unclean": 1, "unknown": 2, "negative": -1}.items():
        probe(f"elect {kind}: not needed", lambda c, n=number: elect(c, n, [(placed(c, [1, 2, 3]), [0])]))
        probe(f"elect {kind}: unknown topic", lambda c, n=number: elect(c, n, [(c.fresh(), [0])]))
        probe(f"elect {kind}: invalid topic", lambda c, n=number: elect(c, n, [("a b", [0])]))
        probe(f"elect {kind}: empty topic", lambda c, n=number: elect(c, n, [("", [0])]))
        probe(f"elect {kind}: unknown partition", lambda c, n=number: elect(c, n, [(placed(c, [1, 2]), [0, 1])]))
        probe(f"elect {kind}: negative partition", lambda c, n=number: elect(c, n, [(placed(c, [1, 2]), [-1])]))
        probe(f"elect {kind}: no topic", lambda c, n=number: elect(c, n, []))
        probe(f"elect {kind}: no partition", lambda c, n=number: elect(c, n, [(placed(c, [1, 2]), [])]))
        probe(f"elect {kind}: all", lambda c, n=number: elect(c, n, None))

    def back(client):
        """A replica that was moved to the front leads when it is asked to."""
        name = placed(client, [1, 2, 3])
        answers = [reassign(client, [(name, [(0, [2, 1, 3])])])]
        moved(client, name, [[2, 1, 3]])
        answers.append(elect(client, 0, [(name, [0])]))
        deadline = time.monotonic() + PATIENCE_S
        while client.metadata(name)[0]["partitions"][0]["leader"] != 2:
            assert time.monotonic() < deadline, f"{name} is not led by its first replica"
            time.sleep(0.02)
        answers.append(elect(client, 0, [(name, [0])]))
        # A cluster may have done it by itself in between.
        return answers[0], answers[1]["error"], answers[2]

    probe("elect preferred: another replica is the first", back)


def reassign(client, topics, version=0, may_change_factor=True):
    """`topics` are names with partitions and their nodes, None to cancel."""

    def partition(index, nodes):
        return i32(index) + compact_array(None if nodes is None else [i32(node) for node in nodes]) + NO_TAGS

    asked = [
        compact_text(name) + compact_array([partition(*one) for one in partitions]) + NO_TAGS
        for name, partitions in topics
    ]
    body = i32(TIMEOUT_MS) + (i8(may_change_factor) if version else b"") + compact_array(asked) + NO_TAGS
    response = client.call(ALTER_REASSIGNMENTS, version, body, flexible=True)
    response.tags()
    response.i32()
    answer = {"may_change_factor": response.i8()} if version else {}
    answer["error"] = response.i16()
    response.compact_text()
    answer["topics"] = outcomes(client, response)
    return answer


def moving(client, topics):
    """What is being moved of these topics, which are names with partitions; None asks for all."""
    body = i32(TIMEOUT_MS) + named(topics) + NO_TAGS
    response = client.call(LIST_REASSIGNMENTS, 0, body, flexible=True)
    response.tags()
    response.i32()
    error = response.i16()
    response.compact_text()

    def partition():
        fields = [response.i32()] + [response.compact_array(response.i32) for _ in range(3)]
        response.tags()
        return fields

    def topic():
        fields = client.plain(response.compact_text()), response.compact_array(partition)
        response.tags()
        return fields

    return {"error": error, "topics": response.compact_array(topic)}


def reassignments():
    def to(name, nodes, *, partition=0, then=None, **options):
        def run(client):
            topic = placed(client, [1, 2])
            answer = reassign(client, [(topic, [(partition, nodes)])], **options)
            if then is not None:
                moved(client, topic, then)
            return answer, moving(client, [(topic, [0])])

        probe(f"reassign: {name}", run)

    to("another node", [1, 3], then=[[1, 3]])
    to("both to others", [3, 1], then=[[3, 1]])
    to("another order", [2, 1], then=[[2, 1]])
    to("as it is", [1, 2], then=[[1, 2]])
    to("one node more", [1, 2, 3], then=[[1, 2, 3]])
    to("one node fewer", [2], then=[[2]])
    to("no node", [])
    to("a node twice", [1, 1])
    to("an unknown node", [1, 9])
    to("a negative node", [1, -1])
    to("unknown partition", [1, 3], partition=9)
    to("negative partition", [1, 3], partition=-1)
    to("nothing to cancel", None)
    to("cancel an unknown partition", None, partition=9)
    to("another node in version 1", [1, 3], then=[[1, 3]], version=1, may_change_factor=False)
    to("one node more, which is not allowed", [1, 2, 3], version=1, may_change_factor=False)
    to("one node fewer, which is not allowed", [1], version=1, may_change_factor=False)
    to("one node more, which is allowed", [1, 2, 3], then=[[1, 2, 3]], version=1)
    probe("reassign: unknown topic", lambda c: reassign(c, [(c.fresh(), [(0, [1, 2])])]))
    probe("reassign: invalid topic", lambda c: reassign(c, [("a b", [(0, [1, 2])])]))
    probe("reassign: no topic", lambda c: reassign(c, []))
    probe("reassign: no partition", lambda c: reassign(c, [(placed(c, [1, 2]), [])]))

    def right_and_wrong(client):
        name = placed(client, [1, 2], [2, 3])
        answer = reassign(client, [(name, [(0, [1, 3]), (1, [9, 2])]), (client.fresh(), [(0, [1])])])
        moved(client, name, [[1, 3], [2, 3]])
        return answer

    probe("reassign: one right and two wrong", right_and_wrong)
    probe("moving: all", lambda c: moving(c, None))
    probe("moving: no topic", lambda c: moving(c, []))
    probe("moving: unknown topic", lambda c: moving(c, [(c.fresh(), [0])]))
    probe("moving: unknown partition", lambda c: moving(c, [(placed(c, [1, 2]), [9])]))
    probe("moving: no partition", lambda c: moving(c, [(placed(c, [1, 2]), [])]))


def quorum(client, topics, version=1):
    asked = [
        compact_text(name) + compact_array([i32(one) + NO_TAGS for one in partitions]) + NO_TAGS
        for name, partitions in topics
    ]
    response = client.call(DESCRIBE_QUORUM, version, compact_array(asked) + NO_TAGS, flexible=True)
    response.tags()
    error = response.i16()
    if version >= 2:
        response.compact_text()

    def member():
        node = response.i32()
        if version >= 2:
            response.take(16)
        response.take(24 if version >= 1 else 8)
        response.tags()
        return node

    def partition():
        fields = {"index": response.i32(), "error": response.i16()}
        if version >= 2:
            response.compact_text()
        fields["leader is a voter"] = response.i32() in NODES
        response.take(12)
        fields["voters"] = sorted(response.compact_array(member))
        fields["observers"] = sorted(response.compact_array(member))
        response.tags()
        return fields

    def topic():
        fields = client.plain(response.compact_text()), response.compact_array(partition)
        response.tags()
        return fields

    return {"error": error, "topics": response.compact_array(topic)}


def described(client, kind, fenced=None):
    flags = i8(0) + i8(kind) + (b"" if fenced is None else i8(fenced))
    version = 1 if fenced is None else 2
    response = client.call(DESCRIBE_CLUSTER, version, flags + NO_TAGS, flexible=True)
    response.tags()
    response.i32()
    answer = {"error": response.i16()}
    response.compact_text()
    answer["type"] = response.i8()
    if answer["error"]:
        return answer
    answer["has an id"] = bool(response.compact_text())
    answer["controller is a node"] = response.i32() in NODES

    def node():
        fields = response.i32()
        response.compact_text()
        response.i32()
        response.compact_text()
        if fenced is not None:
            fields = fields, response.i8()
        response.tags()
        return fields

    answer["nodes"] = sorted(response.compact_array(node))
    answer["operations"] = response.i32()
    return answer


def refusal(client, api, body):
    response = client.call(api, 0, body + NO_TAGS, flexible=True)
    response.tags()
    response.i32()
    return {"error": response.i16()}


def members():
    log = "__cluster_metadata"
    for version in (0, 1, 2):
        probe(f"quorum: in version {version}", lambda c, v=version: quorum(c, [(log, [0])], v))
    probe("quorum: another partition", lambda c: quorum(c, [(log, [1])]))
    probe("quorum: no partition", lambda c: quorum(c, [(log, [])]))
    probe("quorum: two partitions", lambda c: quorum(c, [(log, [0, 1])]))
    probe("quorum: another topic", lambda c: quorum(c, [("absent", [0])]))
    probe("quorum: two topics", lambda c: quorum(c, [(log, [0]), ("absent", [0])]))
    probe("quorum: no topic", lambda c: quorum(c, []))
    for kind in (1, 2, 3):
        probe(f"cluster: endpoints of type {kind}", lambda c, kind=kind: described(c, kind))
    for fenced in (0, 1):
        probe(f"cluster: fenced nodes {fenced}", lambda c, fenced=fenced: described(c, 1, fenced))
    for node in (9, -1):
        probe(f"unregister: node {node}", lambda c, node=node: refusal(c, UNREGISTER_BROKER, i32(node)))

    def added(cluster, node, listeners):
        encoded = [compact_text("CONTROLLER") + compact_text("127.0.0.1") + i16(1) + NO_TAGS] * listeners
        return compact_text(cluster) + i32(TIMEOUT_MS) + i32(node) + bytes(16) + compact_array(encoded)

    def removed(cluster, node):
        return compact_text(cluster) + i32(node) + bytes(16)

    for name, cluster in {"another cluster": "AAAAAAAAAAAAAAAAAAAAAA", "no cluster's id": "x"}.items():
        probe(f"add voter: of {name}", lambda c, id=cluster: refusal(c, ADD_RAFT_VOTER, added(id, 9, 1)))
        probe(f"remove voter: of {name}", lambda c, id=cluster: refusal(c, REMOVE_RAFT_VOTER, removed(id, 9)))


for group in (creations, elections, reassignments, members):
    group()
