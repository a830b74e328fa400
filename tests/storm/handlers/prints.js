// Prints each payload and answers a little later: one at a time, or 16 at once if told so.
if (process.argv[1] === 'concurrent') {
  process.stdout.write('{"ready":true,"concurrency":16}\n');
}
require('readline').createInterface({ input: process.stdin }).on('line', async line => {
  const { id, payload } = JSON.parse(line);
  console.log('working on ' + payload);
  await new Promise(resolve => setTimeout(resolve, 2));
  const result = payload.startsWith('request') ? { id, payload } : payload;
  process.stdout.write(JSON.stringify({ id, result }) + '\n');
});
