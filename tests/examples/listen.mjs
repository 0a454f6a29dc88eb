// Receives events in Node as a page does. Prints "cursor id" for each event and the final error; "open" and "closed" go to stderr.
const [file, url, options] = process.argv.slice(2);
const { events } = await import(file);
try {
  const onState = (state) => console.error(state);
  for await (const { cursor, event } of events(url, { ...JSON.parse(options), onState })) {
    console.log(cursor, event.id);
  }
} catch (error) {
  console.log(error.constructor.name, error.cursor ?? error.status ?? error.message);
}
