/**
 * Yields the events of one job until it ends, each once and in order, however often the connection breaks:
 *
 *     for await (const event of progress("ws://127.0.0.1:8001/jobtape/ws", job)) show(event.data);
 *
 * After a lost connection it subscribes again after the cursor of the last event, so the server sends what was missed.
 * Throws an Error if the server refuses the subscription, or has removed events that are still needed.
 */
export async function* progress(url, job) {
  let after = "first";
  for (;;) {
    for await (const message of messages(url, { type: "subscribe", id: "progress", job, after })) {
      if (message.type === "error") throw new Error(message.detail);
      if (message.type === "reset") throw new Error("events of this job have been removed: load the job again");
      if (message.cursor !== null && message.type !== "subscribed") after = message.cursor;
      if (message.type !== "event") continue;
      yield message.event;
      if (/\.(succeeded|failed|cancelled)$/.test(message.event.type)) return;
    }
    await new Promise((later) => setTimeout(later, 200)); // the connection broke: connect again
  }
}

/** Yields the messages of one connection, until it ends. */
async function* messages(url, subscription) {
  const socket = new WebSocket(url);
  const arrived = [];
  let wake = () => {};
  let open = true;
  socket.onopen = () => socket.send(JSON.stringify(subscription));
  socket.onmessage = ({ data }) => {
    arrived.push(JSON.parse(data));
    wake();
  };
  socket.onclose = () => {
    open = false;
    wake();
  };
  socket.onerror = () => {}; // "close" follows
  try {
    while (open || arrived.length > 0) {
      while (arrived.length > 0) yield arrived.shift();
      if (open) await new Promise((resolve) => (wake = resolve));
    }
  } finally {
    socket.close();
  }
}
