"""Where the commands of a store go in a Redis cluster: each to the primary that has its key's slot.

One write and one wait for each node, all nodes at once; a node that does not answer fails its own keys alone. Moved
slots are followed at once, one by one, and the whole table is read again in the background, never on the way of a call.
A node that failed several calls in a row is not asked again until it answers in the background.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError

from service.stores.node import Command, Node, NodeError
from service.stores.servers import Keyed, MakeNode, is_read_only, replicated, wait
from service.stores.url import Address
from service.stores.watch import Watch

log = logging.getLogger("augur.store")

# A key is redirected once by a slot that has moved and once by one that moves; more only while much is in motion.
MOST_HOPS = 5
# Of calls in a row that a node did not answer; then it is left alone.
MOST_FAILURES = 3
# A node that is no longer of the cluster is let go of when it was not called for so long.
UNUSED_SECONDS = 30.0
ASKING: Command = ("ASKING",)


class Cluster:
    """`redis+cluster://`: the primaries of a cluster, found from any of its nodes."""

    def __init__(self, seeds: Sequence[Address], make_node: MakeNode, timeout: float) -> None:
        self._seeds = seeds
        self._make_node = make_node
        self._timeout = timeout
        self._nodes: dict[Address, Node] = {}
        self._primary_of: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._known = False
        self._watch = Watch(self._look, NodeError)

    async def get(self, keys: Sequence[bytes], deadline: float) -> list[Any]:
        """See `Servers`. A GET for each key: an MGET of keys whose slot is on the move is refused."""
        return await self.run([(key, ("GET", key)) for key in keys], deadline)

    async def run(self, commands: Sequence[Keyed], deadline: float, replicas: int = 0) -> list[Any]:
        """See `Servers`."""
        await self._find(deadline)
        replies: list[Any] = [NodeError("redirected too often")] * len(commands)
        # Places of commands, by who is asked and whether as one who takes a slot over.
        ways: dict[tuple[Node | None, bool], list[int]] = defaultdict(list)
        for place, (key, _) in enumerate(commands):
            ways[self._primary_of[key_slot(key)], False].append(place)
        for _ in range(MOST_HOPS):
            exchanges = [
                self._exchange(node, asking, [commands[place][1] for place in places], deadline, replicas)
                for (node, asking), places in ways.items()
            ]
            answers = [await exchanges[0]] if len(exchanges) == 1 else await asyncio.gather(*exchanges)
            onward: dict[tuple[Node | None, bool], list[int]] = defaultdict(list)
            for ((node, _), places), answer in zip(ways.items(), answers, strict=True):
                for place, reply in zip(places, answer, strict=True):
                    if isinstance(reply, AskError):
                        onward[self._redirect(node, reply), not isinstance(reply, MovedError)].append(place)
                    else:
                        replies[place] = reply
            if not onward:
                break
            ways = onward
        self._raise_if_all_are_away(replies)
        return replies

    async def ping(self, deadline: float) -> None:
        """See `Servers`."""
        await self._find(deadline)
        await asyncio.gather(*(node.exchange([("PING",)], deadline) for node in self._primaries()))

    async def close(self) -> None:
        """See `Servers`."""
        await self._watch.close()
        for node in self._nodes.values():
            await node.close()

    async def _find(self, deadline: float) -> None:
        if not self._known:
            await self._watch.tried(deadline)
        if not self._known:
            raise NodeError("no node of the cluster tells where the slots are")

    def _raise_if_all_are_away(self, replies: Sequence[Any]) -> None:
        away = all(isinstance(reply, NodeError) for reply in replies)
        if replies and away and all(node.failures for node in self._primaries()):
            raise NodeError(f"no node of the cluster answers: {replies[0]}")

    async def _exchange(
        self, node: Node | None, asking: bool, commands: list[Command], deadline: float, replicas: int
    ) -> list[Any]:
        """Replies of one node; where it does not answer, a NodeError for each command."""
        if node is None:
            self._watch.start()
            return [NodeError("no node has the slot")] * len(commands)
        if node.failures >= MOST_FAILURES:
            self._watch.start()
            return [NodeError(f"{node}: did not answer, and is left alone until it does")] * len(commands)
        sent = [each for command in commands for each in (ASKING, command)] if asking else commands
        try:
            if replicas:
                replies = replicated(await node.exchange([*sent, wait(replicas, deadline)], deadline), replicas)
            else:
                replies = await node.exchange(sent, deadline)
        except NodeError as error:
            self._watch.start()
            if node.failures == MOST_FAILURES:
                log.warning("a node of the cluster is left alone until it answers again: %s", error)
            return [error] * len(commands)
        for reply in replies:
            if isinstance(reply, ClusterDownError) or is_read_only(reply):
                self._watch.start()
        return replies[1::2] if asking else replies

    def _redirect(self, node: Node | None, reply: AskError) -> Node:
        # An empty host is that of the node that says so.
        address = (reply.host or (node.address[0] if node else ""), reply.port)
        target = self._node(address)
        if isinstance(reply, MovedError):
            self._primary_of[reply.slot_id] = target
            self._watch.start()
        return target

    def _node(self, address: Address) -> Node:
        if address not in self._nodes:
            self._nodes[address] = self._make_node(address)
        return self._nodes[address]

    def _primaries(self) -> set[Node]:
        return {node for node in self._primary_of if node is not None}

    # In the background.

    async def _look(self) -> bool:
        """Reads the table of slots again and tries the nodes that failed; whether all is well."""
        await self._read_table()
        failed = [node for node in self._primaries() if node.failures]
        deadline = asyncio.get_running_loop().time() + self._timeout
        await asyncio.gather(*(node.exchange([("PING",)], deadline) for node in failed))
        return None not in self._primary_of

    async def _read_table(self) -> None:
        candidates = [self._node(address) for address in dict.fromkeys([*self._nodes, *self._seeds])]
        random.shuffle(candidates)
        candidates.sort(key=lambda node: node.failures)
        wrong: object = "none"
        for node in candidates:
            deadline = asyncio.get_running_loop().time() + self._timeout
            try:
                (table,) = await node.exchange([("CLUSTER", "SLOTS")], deadline)
            except NodeError as error:
                wrong = error
                continue
            if isinstance(table, list) and table:
                await self._take_table(table, node.address[0])
                return
            wrong = table or f"{node}: knows of no slots"
        raise NodeError(f"no table of slots: {wrong}")

    async def _take_table(self, table: Sequence[Any], asked: str) -> None:
        primary_of: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        mentioned = set()
        for first, last, *servers in table:
            addresses = [((host or b"").decode() or asked, int(port)) for host, port, *_ in servers]
            mentioned.update(addresses)
            primary_of[first : last + 1] = [self._node(addresses[0])] * (last + 1 - first)
        self._primary_of, self._known = primary_of, True
        # A node without slots is still called while it takes its first ones over.
        unused_since = asyncio.get_running_loop().time() - UNUSED_SECONDS
        for address in [address for address in self._nodes if address not in mentioned]:
            if self._nodes[address].latest < unused_since:
                await self._nodes.pop(address).close()
