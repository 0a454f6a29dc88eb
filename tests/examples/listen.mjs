// What a page does, for Node: prints "cursor id" for each event, and how it ended; "open" and "cut" go to stderr.
const [file, url, options] = process.argv.slice(2);
const { events } = await import(file);
try {
  for await (const { cursor, event } of events(url, { ...JSON.parse(options), told: (state) => console.error(state) })) {
    console.log(cursor, event.id);
  }
} catch (error) {
  console.log(error.constructor.name, error.cursor ?? error.status ?? error.message);
}
