"""Everything that an API process needs: the job service, its listeners, and the health checks."""

from collections.abc import Mapping

from jobtape.broker.management import ManagementApi
from jobtape.producer.live.commit_feed import CommitFeed
from jobtape.producer.live.listeners import Listeners
from jobtape.producer.monitoring.health import Health
from jobtape.producer.monitoring.statistics import StatisticsReader
from jobtape.producer.monitoring.subscribers import Subscribers
from jobtape.producer.service.keys import KeyRing
from jobtape.producer.service.service import READ_TIMEOUT, JobService
from jobtape.producer.service.submission.limits import Limits
from jobtape.schemas.job_types.job_type import JobTypeSpec
from jobtape.schemas.topology import Topology
from jobtape.view.store import Store


class Producer(JobService):
    """A ``JobService`` with ``listeners``, ``statistics``, ``subscribers``, ``keys`` and ``health``. Nothing connects
    before ``start``. ``management_url``: where the broker's management API is, if not at its usual port.
    """

    def __init__(
        self,
        url: str,
        topology: Topology,
        store: Store,
        job_types: Mapping[str, JobTypeSpec],
        limits: Limits,
        management_url: str | None,
    ) -> None:
        super().__init__(url, topology, store, job_types, limits)
        self.listeners = Listeners(
            store, CommitFeed(self.watch.link, topology), most=limits.max_listeners, read_limit=READ_TIMEOUT
        )
        self.statistics = StatisticsReader(store, self._reads)
        self.subscribers = Subscribers(ManagementApi(url, management_url), topology)
        self.keys = KeyRing(store, self._reads)
        self.health = Health(self.watch, store, self.publish_barrier)

    async def close(self) -> None:
        """Stop. Whether running publishes were accepted is unknown."""
        await self.listeners.close()
        await self.statistics.close()
        await self.subscribers.close()
        await self.keys.close()
        await super().close()
        await self.health.close()
