"""Generations in Redis, so that any instance can follow, be rejoined on, and take over.

Each generation that concerns this process is also in its memory, where readers read it: a leader's records get there
once Redis has them (writer.py), a follower's as Redis tells of them (follower.py).

What the keys are is said in keys.py, how leaders that are gone are noticed in liveness.py.
"""

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from weakref import WeakValueDictionary

from domain.caching import Purges
from domain.chat import ChatRequest
from domain.errors import StreamUnavailable
from domain.events import Publish
from domain.generation import Generation, Opened, Record, Sealed, StaleEpoch
from domain.ports import Claim, Lease, Recording
from infrastructure.memory.generations import Generations
from infrastructure.redis.client import NO_ANSWER, RedisAway, RedisClient, unheard
from infrastructure.redis.follower import NO_RECORD, Follower, Held
from infrastructure.redis.keys import (
    STOPS,
    followed_key,
    lease_key,
    log_key,
    own_lease_key,
    response_key,
    stream_key,
    tag_of,
)
from infrastructure.redis.known import Known, Roll
from infrastructure.redis.scripts import CLAIM, CLOSE, ENDED, HELD, JOIN, OWNED, RELEASE, REOPEN, TAKE_OVER
from infrastructure.redis.subscriptions import Subscriptions
from infrastructure.redis.wire import decode_request, encode_record, encode_request
from infrastructure.redis.writer import Writer

FOLLOWED_MS = 2200
"""How long it is believed that a generation is followed by an instance that does not say so again."""

WANTED_LOOKS = 4
"""For so many looks a generation is followed that nobody reads. It takes two to find that its leader is gone."""

UNFOLLOWED_MS = 10_000
"""What was followed must have been found not to be for so long: an instance that stands still says nothing, and has
readers."""


class RedisGenerationLog:
    """See the module. `generations` are those that concern this process, and the ended ones that it still keeps."""

    def __init__(
        self,
        *,
        client: RedisClient,
        subscriptions: Subscriptions,
        generations: Generations,
        instance_id: str,
        lease_s: float,
        keep_s: float,
        purges: Purges,
        publish: Publish,
    ) -> None:
        self._client = client
        self._purges = purges
        self._generations = generations
        self._instance_id = instance_id
        self._lease_ms = int(lease_s * 1000)
        self._roll = Roll()
        self._follower = Follower(
            client=client, subscriptions=subscriptions, generations=generations, roll=self._roll, publish=publish
        )
        self._writer = Writer(
            client=client,
            generations=generations,
            roll=self._roll,
            instance_id=instance_id,
            lease_ms=self._lease_ms,
            keep_ms=int(keep_s * 1000),
            fenced=self._fenced,
        )
        self._claiming: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._back_at_s = -math.inf
        self.took_over: Callable[[Lease, ChatRequest], None]
        self.asked_to_stop: Callable[[str], object]
        client.on_return.extend((self._redis_is_back, self._catch_up))
        subscriptions.on_gap.append(self._catch_up)
        subscriptions.add(STOPS, lambda generation_id: self.asked_to_stop(generation_id.decode()))

    async def under_way(self, fingerprint: str) -> Generation | None:
        """The shared generation that is answering this question now, here or elsewhere."""
        generation = self._answering(fingerprint)
        if generation is not None:
            return generation
        match await self._joined(fingerprint, lease_key(fingerprint)):
            case [generation_id, epoch, owner, b""]:
                found = await self._follower.join(
                    fingerprint, generation_id.decode(), Held(epoch=int(epoch), owner=owner.decode())
                )
                return None if found is None or found.sealed else found
        return None

    def _answering(self, fingerprint: str) -> Generation | None:
        """The one that is known here, and is wanted from now on."""
        generation = self._generations.answering(fingerprint)
        if generation is not None:
            self._roll.get(generation.opened.generation_id)
        return generation

    async def claim(self, opened: Opened, request: ChatRequest) -> Claim:
        """Join the generation under way, here or elsewhere, or begin one and lead it; in memory alone without Redis.

        Who is cancelled while it waits leaves nothing behind that nobody leads: it is led, until it is found deserted.
        """
        claiming = asyncio.get_running_loop().create_task(self._claim_or_join(opened, request))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            claiming.add_done_callback(lambda _: self._lead_anyway(claiming, request))
            raise

    def _lead_anyway(self, claiming: "asyncio.Task[Claim]", request: ChatRequest) -> None:
        if not claiming.cancelled() and claiming.exception() is None and (lease := claiming.result().lease):
            self.took_over(lease, request)

    async def _claim_or_join(self, opened: Opened, request: ChatRequest) -> Claim:
        async with self._claiming.setdefault(tag_of(opened), asyncio.Lock()):
            if opened.is_shared and (running := self._answering(opened.fingerprint)):
                return Claim(running, None)
            return await self._claim(opened, encode_request(request))

    async def _claim(self, opened: Opened, request: bytes) -> Claim:
        tag, generation_id = tag_of(opened), opened.generation_id
        keys = (lease_key(tag), log_key(tag, generation_id), followed_key(tag), response_key(tag))
        first = encode_record(opened)
        self._writer.make_findable(opened)
        try:
            answer = await self._client.submit_script(
                CLAIM, keys, generation_id, self._instance_id, self._lease_ms, first, request, FOLLOWED_MS
            )
        except NO_ANSWER:
            return self._lead(opened, request, written=0)
        if answer[0] == OWNED:
            return self._lead(opened, request, written=1, may_be_stored=bool(answer[1]))
        self._client.submit("DEL", stream_key(generation_id)).add_done_callback(unheard)
        _, held_id, epoch, owner = answer
        generation = await self._follower.join(tag, held_id.decode(), Held(epoch=int(epoch), owner=owner.decode()))
        if generation is None:
            return self._lead(opened, request, written=0)
        if self._is_purged(generation):
            self._client.submit_script(RELEASE, keys[:1], held_id).add_done_callback(unheard)
            return await self._claim(opened, request)
        return Claim(generation, None)

    def _is_purged(self, generation: Generation) -> bool:
        """Whether it ended before a purge: its question is held still when it was written late."""
        sealed = generation.sealed
        if sealed is None:
            return False
        return self._purges.conceal(Recording(generation, generation.opened.created_at_s + sealed.duration_s))

    async def append(self, lease: Lease, record: Record) -> None:
        """`record` is on its way to the log, and readers are told of it once it is there; a Sealed one is there now.

        Raises:
            StaleEpoch: another instance leads the generation now.
        """
        generation = lease.generation
        known = self._roll.get(generation.opened.generation_id)
        if known is None or known.is_alone:
            self._generations.append(generation, lease.epoch, record)
            return
        if not known.is_led_here or lease.epoch != generation.epoch:
            raise StaleEpoch
        self._writer.append(known, record)
        if isinstance(record, Sealed):
            await known.settle()
            if not known.is_led_here:
                raise StaleEpoch
            asyncio.get_running_loop().call_soon(self._release, known)

    def _release(self, known: Known) -> None:
        """The question can be asked anew, behind what its leader did at once when it was sealed: store the answer."""
        self._client.submit_script(RELEASE, [known.lease], known.generation_id).add_done_callback(unheard)

    async def find(self, generation_id: str) -> Generation | None:
        """The generation of that id, while it runs anywhere and for the time that ended ones are kept.

        Raises:
            StreamUnavailable: Redis cannot tell now.
        """
        generation = self._generations.find(generation_id)
        if generation is not None:
            self._roll.get(generation_id)
            return generation
        try:
            tag = await self._client.submit("GET", stream_key(generation_id))
        except NO_ANSWER as away:
            raise StreamUnavailable from away
        found = None if tag is None else await self._found(tag.decode(errors="replace"), generation_id)
        if found is None and self._client.is_away:
            raise StreamUnavailable
        return found

    async def _found(self, tag: str, generation_id: str) -> Generation | None:
        """The generation under its question's lease, under one of its own, or under none when it has ended."""
        for key in (lease_key(tag), own_lease_key(tag, generation_id)):
            match await self._joined(tag, key):
                case [held_id, epoch, owner, _] if held_id == generation_id.encode():
                    held = Held(epoch=int(epoch), owner=owner.decode(), is_apart=key != lease_key(tag))
                    return await self._follower.join(tag, generation_id, held)
        return await self._follower.join(tag, generation_id, Held())

    async def _joined(self, tag: str, lease: str) -> list[Any]:
        """Who leads what, if anybody and as far as Redis says; that it is followed from here is known from now on."""
        try:
            held: list[Any] = await self._client.submit_script(JOIN, (lease, followed_key(tag)), FOLLOWED_MS)
        except NO_ANSWER:
            return []
        return held

    def _lead(self, opened: Opened, request: bytes, *, written: int, may_be_stored: bool = True) -> Claim:
        generation = self._generations.begin(opened)
        lease = Lease(generation, generation.claim())
        known = Known(generation, request, self._instance_id, is_led_here=True, written=written)
        self._roll.add(known)
        return Claim(generation, lease, may_be_stored)

    def _fenced(self, known: Known, epoch: int, owner: str) -> None:
        """What another leads now is read here as what it writes; the provider's call for it here is ended."""
        known.is_led_here, known.owner, known.generation.epoch = False, owner, epoch
        known.pending.clear()
        self._follower.follow(known)
        self._follower.fetch(known)
        known.settled()
        self.asked_to_stop(known.generation_id)

    def _redis_is_back(self) -> None:
        self._back_at_s = asyncio.get_running_loop().time()

    def _catch_up(self) -> None:
        """Redis is back, or may have said something that was not heard."""
        for known in self._roll:
            self.refresh(known)

    def refresh(self, known: Known) -> None:
        """Redis and this process will have the same records, as far as they can."""
        if known.is_led_here:
            self._writer.check(known)
        else:
            self._follower.fetch(known)
            if known.is_to_stop:
                self._client.submit("PUBLISH", STOPS, known.generation_id).add_done_callback(unheard)

    async def request_stop(self, generation_id: str) -> None:
        """Whoever leads the generation has been asked to stop it, and will be again for as long as it is read here."""
        known = self._roll.get(generation_id)
        if known is not None:
            known.is_to_stop = True
        with suppress(*NO_ANSWER):
            await self._client.submit("PUBLISH", STOPS, generation_id)

    async def is_read_elsewhere(self, generation: Generation) -> bool:
        """Whether another instance may have readers of a generation that is led here; if not, none will join it.

        Unless somebody has come to read it here meanwhile: then they can, as soon as this is said. While Redis does not
        answer, all that is in it may be read; and until those who follow have had time to say so since its return.
        """
        known = self._roll.get(generation.opened.generation_id)
        if known is None or known.is_alone:
            return False
        if self._client.is_away:
            return known.written > 0
        if asyncio.get_running_loop().time() - self._back_at_s < FOLLOWED_MS / 1000:
            return True
        try:
            return not await self._close(known)
        except NO_ANSWER:
            return True

    async def _close(self, known: Known) -> bool:
        """Whether nobody elsewhere follows, nor will; if somebody has come to read it here, they may."""
        while True:
            ask = (CLOSE, (known.lease, known.followed), known.generation_id, UNFOLLOWED_MS)
            [code] = await self._client.submit_script(*ask)
            if not known.generation.reader_count:
                return bool(code == OWNED)
            await self._client.submit_script(REOPEN, [known.lease], known.generation_id)
            if known.generation.reader_count:
                return bool(code == OWNED)

    async def catch_up(self, generation: Generation, number: int) -> None:
        """What Redis has of a generation that another leads is here too, whether or not Redis has told of it.

        Raises:
            StreamUnavailable: the record of that number may be one that its leader could not write yet.
        """
        known = self._roll.get(generation.opened.generation_id)
        if known is None or known.is_led_here:
            return
        if not known.is_alone:
            with suppress(*NO_ANSWER, *NO_RECORD):
                await self._follower.read_on(known)
        if number >= len(generation.records) and not (generation.sealed or known.is_led_here):
            raise StreamUnavailable

    async def settle(self, generation: Generation) -> None:
        """What Redis did not have of it, before others that wait for the same, it has; or it is known to go on alone.

        Raises:
            RedisAway, RedisError, RedisClusterException: Redis does not take it.
        """
        known = self._roll.get(generation.opened.generation_id)
        while known is not None and known.is_led_here and not (known.is_written or known.is_alone):
            if self._client.is_away:
                raise RedisAway
            self._writer.write(known)
            if answer := known.writing:
                await asyncio.wait([answer])
                if failure := answer.exception():
                    raise failure

    async def can_go_on_elsewhere(self, generation: Generation) -> bool:
        """Whether Redis has all of it, once it has answered: it goes on wherever it is read on another instance."""
        known = self._roll.get(generation.opened.generation_id)
        if known is None:
            return False
        self._writer.hurry(known)
        while known.writing:
            await asyncio.wait([known.writing])
            self._writer.hurry(known)
        return known.is_written and not (known.is_alone or self._client.is_away)

    def followed(self) -> Iterator[Known]:
        """The generations that others lead and somebody reads here, or was looking for; those of nobody are dropped.

        Who was told to come back in a second may be the only one who wants what its leader has left behind.
        """
        for known in self._roll:
            if known.is_led_here:
                continue
            known.unread_count = 0 if known.generation.reader_count else known.unread_count + 1
            if known.unread_count <= WANTED_LOOKS:
                yield known
            else:
                self._follower.drop(known)

    def quiet(self) -> Iterator[Known]:
        """The generations led here of which nothing has come into Redis since the last look."""
        for known in self._roll:
            if known.is_led_here and known.seen_count == known.written:
                yield known
            known.seen_count = known.written

    async def take_over(self, known: Known, *, is_cut_off: bool) -> None:
        """Lead a generation whose leader is gone, unless another instance has been quicker.

        Without Redis for long, or when it knows the generation no more, this is for the readers here alone.
        """
        if known.is_led_here or known.generation.sealed:
            return
        try:
            request = decode_request(known.request)
            if not known.is_alone and not is_cut_off:
                await self._take(known)
            else:
                known.go_alone()
        except NO_ANSWER:
            return
        except NO_RECORD:
            self._follower.lose(known)
            return
        if (known.is_alone or known.owner == self._instance_id) and not (known.generation.sealed or known.is_led_here):
            known.is_led_here, known.owner = True, self._instance_id
            self._follower.leave(known)
            self.took_over(Lease(known.generation, known.generation.claim()), request)

    async def _take(self, known: Known) -> None:
        """Its owner is known again: this instance, one that was quicker, or none, which leaves it alone."""
        generation = known.generation
        code, *more = await self._client.submit_script(
            TAKE_OVER,
            (known.lease, known.log),
            known.generation_id,
            generation.epoch,
            self._instance_id,
            self._lease_ms,
            known.request,
        )
        if code in {OWNED, ENDED}:
            await self._follower.read_on(known)
        if code == OWNED:
            known.owner, generation.epoch = self._instance_id, more[0] - 1
            self._writer.make_findable(generation.opened)
        elif code == HELD:
            known.owner, generation.epoch = more[1].decode(), int(more[0])
        elif code != ENDED:
            known.go_alone()
