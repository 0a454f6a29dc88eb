// Receives outcomes over AMQP with amqplib. It needs RabbitMQ's address and nothing else of Jobtape.
//
//   npm ci
//   RABBITMQ_URL=amqp://guest:guest@localhost:5672/ node results.mjs 'succeeded.#' 'failed.#'
//
// Its queue is deleted when its connection ends.
import amqp from "amqplib";

const url = process.env.RABBITMQ_URL ?? "amqp://guest:guest@localhost:5672/";
const exchange = `${process.env.JOBTAPE_NAMESPACE ?? "jobtape"}.results`;
const keys = process.argv.length > 2 ? process.argv.slice(2) : ["#"];
const REMEMBERED = 10_000;

const connection = await amqp.connect(url);
connection.on("error", (error) => console.error(error.message));
connection.on("close", () => process.exit(1));
const channel = await connection.createChannel();
const { queue } = await channel.assertQueue("", { exclusive: true });
for (const key of keys) await channel.bindQueue(queue, exchange, key);
await channel.prefetch(100);

const seen = new Set();
await channel.consume(queue, (message) => {
  if (message === null) process.exit(1); // the broker has removed the queue
  const { messageId, type } = message.properties;
  // Delivered at least once: the same event has the same id.
  if (!seen.has(messageId)) {
    seen.add(messageId);
    if (seen.size > REMEMBERED) seen.delete(seen.values().next().value);
    const event = JSON.parse(message.content.toString());
    const outcome = event.data.result ?? event.data.error ?? null;
    console.log(event.id, type, event.data.job_type, JSON.stringify(outcome));
  }
  channel.ack(message);
});
console.error(`listening for ${keys.join(", ")}`);
