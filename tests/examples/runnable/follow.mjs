// Follows a job in Node as the page of examples/websocket_progress does. Prints the id of each event, and "end".
const [file, url, job] = process.argv.slice(2);
const { progress } = await import(file);
for await (const event of progress(url, job)) console.log(event.id);
console.log("end");
