"""The second service sends a parcel for each order that was placed, also for those of the time when it did not run."""

import asyncio

import jobtape
from examples.two_services.orders import Order, place_order
from jobtape import Client, Options, job


@job("parcel.send", queue="shipping")
def send_parcel(order: str, article: str, pieces: int) -> str:
    """Hand a parcel to the carrier."""
    return f"{pieces} x {article}"


async def main() -> None:
    """Submit one parcel for each order, until this process ends."""
    # The name keeps the position: a second process of this service takes over where this one stopped.
    orders = jobtape.subscribe(events="succeeded", types=place_order, since="first", name="shipping")
    async with Client() as client, orders:
        async for event in orders:
            order = Order.model_validate(event.result)
            # An event may arrive again after a crash. Under the same key it makes no second parcel.
            options = Options(idempotency_key=f"parcel-{event.job_id}", correlation_id=event.correlation_id)
            await client.submit_with(
                options, send_parcel, order=event.job_id, article=order.article, pieces=order.pieces
            )
            print("parcel for order", event.job_id, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
